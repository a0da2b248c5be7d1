"""`manage.py export_events` prints each event once, and misses none."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import tracemalloc
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from ags.database.clock import get_database_time
from ags.operations.event_export import EventExport
from ags.sessions.models import Event, SecurityEvent, SessionToken
from tests.support.clients import ClientApp, HeadEnd
from tests.support.event_exports import (
    add_event,
    add_many_events,
    age_events,
    event_id,
    parse_lines,
    run_export,
    start_export,
)
from tests.support.waiting import PATIENCE, wait_until

NAMES = [
    "id",
    "time",
    "kind",
    "tenant",
    "service",
    "kid",
    "correlation_id",
    "client_address",
    "account_id",
    "client_id",
    "actor",
    "reason",
    "details",
]
"""An interface: docs/running/audit-export.md."""

real_transactions = pytest.mark.django_db(transaction=True)


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


def iso(time: datetime) -> str:
    return time.isoformat()


def test_each_event_is_one_object_without_secrets(nagra: HeadEnd, app: ClientApp) -> None:
    proof = nagra.token(OpfAccountId="account-7")
    session_token = nagra.present(proof, x_correlation_id="granted").json()["sessionToken"]
    app.tokens = app.redeem(session_token, deviceInformation={"name": "marker-of-a-device"}).json()
    secrets = [proof, session_token, app.tokens["access_token"], app.tokens["refresh_token"]]
    assert app.redeem(session_token).status_code == 401
    assert app.sign_out().status_code == 200
    age_events()

    lines = json.dumps(events := run_export())
    assert [event["kind"] for event in events] == [
        "session_token_issued",
        "signed_on",
        "session_token_reused",
        "sign_on_ended",
    ]
    assert {tuple(event) for event in events} == {tuple(NAMES)}
    assert len({*ids(events)}) == len(events)
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])
        assert (event["tenant"], event["account_id"]) == ("nagra", "account-7")
    issued, signed_on, reused, ended = events
    assert issued["correlation_id"] == "granted"
    assert (issued["kid"], issued["client_address"], issued["client_id"]) == (nagra.kid, "127.0.0.1", None)
    assert signed_on["client_id"] == ended["client_id"] == app.tokens["client_id"]
    assert (reused["details"]["times"], ended["reason"]) == (1, "signed_out")
    hashes = [bytes(row.token_hash).hex() for row in SessionToken.unscoped.all()]
    for secret in (*secrets, *hashes, nagra.secret.hex(), "marker-of-a-device"):
        assert secret not in lines
        assert secret.rpartition(".")[2] not in lines


def test_a_cursor_continues_where_the_last_run_ended(nagra: HeadEnd, tmp_path: Path) -> None:
    cursor = ("--cursor", str(tmp_path / "cursor"))
    first = add_event("nagra", 7200)
    second = add_event("nagra", 600)
    assert ids(run_export(*cursor)) == [event_id(first), event_id(second)]
    assert run_export(*cursor) == []
    stored = json.loads((tmp_path / "cursor").read_text())
    assert stored["tenants"] is None
    position = datetime.fromisoformat(stored["position"])
    assert timedelta(seconds=30) <= get_database_time() - position < timedelta(seconds=30 + PATIENCE)
    assert [file.name for file in tmp_path.iterdir()] == ["cursor"]


def test_an_event_is_exported_only_after_the_delay(nagra: HeadEnd, tmp_path: Path) -> None:
    cursor = ("--cursor", str(tmp_path / "cursor"))
    young = add_event("nagra", 0)
    assert run_export(*cursor) == []
    assert run_export("--delay", "3600") == []
    (tmp_path / "cursor").unlink()
    Event.unscoped.update(created_at=get_database_time() - timedelta(seconds=40))
    assert ids(run_export(*cursor)) == [event_id(young)]


def test_windows_repeat_and_miss_nothing(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Over several days, in several tenants and in none."""
    events = [
        add_event(tenant_id, hour * 1800 + 60)
        for hour in range(100)
        for tenant_id in ("nagra", None, "sunrise")
    ]
    exported = run_export()
    assert Counter(ids(exported)) == Counter(map(event_id, events))
    for tenant_id in ("nagra", "sunrise", None):
        times = [event["time"] for event in exported if event["tenant"] == tenant_id]
        assert times == sorted(times)
        assert len(times) == 100


def test_events_of_one_time_are_all_exported(nagra: HeadEnd) -> None:
    """Also over the pages in which PostgreSQL returns them."""
    add_many_events("nagra", 2500)
    exported = ids(run_export())
    assert len(exported) == len({*exported}) == 2500


def test_tenants_can_be_selected(nagra: HeadEnd, sunrise: HeadEnd, tmp_path: Path) -> None:
    add_event(None)
    ours, theirs = add_event("nagra"), add_event("sunrise")
    assert ids(run_export("--tenant", "nagra")) == [event_id(ours)]
    assert ids(run_export("--tenant", "sunrise", "--tenant", "nagra")) == [event_id(ours), event_id(theirs)]
    assert len(run_export()) == 3
    with pytest.raises(CommandError, match=r"^Tenant nobody does not exist\.$"):
        run_export("--tenant", "nagra", "--tenant", "nobody")
    run_export("--tenant", "nagra", "--cursor", str(tmp_path / "cursor"))
    with pytest.raises(CommandError, match=r"is the cursor of an export of nagra\. Use another file\.$"):
        run_export("--cursor", str(tmp_path / "cursor"))


def test_since_and_until_limit_the_time(nagra: HeadEnd, tmp_path: Path) -> None:
    early, middle, late = (add_event("nagra", hours * 3600) for hours in (5, 3, 1))
    now = get_database_time()
    since, until = iso(now - timedelta(hours=4)), iso(now - timedelta(hours=2))
    assert ids(run_export("--since", since, "--until", until)) == [event_id(middle)]
    assert ids(run_export("--until", until)) == [event_id(early), event_id(middle)]
    cursor = ("--cursor", str(tmp_path / "cursor"))
    assert ids(run_export("--since", since, "--until", until, *cursor)) == [event_id(middle)]
    assert ids(run_export("--since", since, *cursor)) == [event_id(late)]
    assert ids(run_export("--since", "0001-01-01")) == [event_id(each) for each in (early, middle, late)]


@pytest.mark.parametrize(
    "options",
    [
        ("--since", "yesterday"),
        ("--until", "2026-13-01"),
        ("--since", "0001-01-01T00:00:00+14:00"),
        ("--delay", "0"),
        ("--delay", "86401"),
        ("--delay", "٣"),
        ("--delay", "9" * 5000),
        ("--syslog", "localhost"),
        ("--syslog", "localhost:0"),
        ("--syslog", "localhost:65536"),
        ("--syslog", "http://localhost:1"),
        ("--syslog", "relative/path"),
    ],
)
def test_invalid_options_are_rejected(options: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match=f"argument {options[0]}: must be"):
        call_command("export_events", *options)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"position": 5, "tenants": null}', "\udcff"])
def test_another_file_is_no_cursor(db: None, tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CommandError, match=r"file is not a cursor of export_events\.$"):
        run_export("--cursor", str(tmp_path / "file"))


def test_a_cursor_that_cannot_be_stored_is_an_error_before_the_first_line(
    nagra: HeadEnd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_event("nagra")
    with pytest.raises(CommandError, match="No such file or directory"):
        call_command("export_events", "--cursor", str(tmp_path / "missing" / "cursor"))
    assert capsys.readouterr().out == ""


def test_a_cursor_of_the_future_is_an_error(nagra: HeadEnd, tmp_path: Path) -> None:
    """As after the database was restored: new events would not be exported."""
    later = iso(get_database_time() + timedelta(days=1))
    (tmp_path / "cursor").write_text(json.dumps({"position": later, "tenants": None}))
    with pytest.raises(CommandError, match="If the database was restored"):
        run_export("--cursor", str(tmp_path / "cursor"))


def test_each_state_of_a_security_event_has_an_id_of_its_own(nagra: HeadEnd, tmp_path: Path) -> None:
    """The row moves to a later window when the token is used once more."""
    cursor = ("--cursor", str(tmp_path / "cursor"))
    row = SecurityEvent.unscoped.create(tenant_id="nagra", kind="session_token_reused", subject="1")
    age_events(7200)
    assert ids(run_export(*cursor)) == [f"security_event:{row.pk}:1"]
    (tmp_path / "cursor").write_text(
        json.dumps({"position": iso(get_database_time() - timedelta(hours=1)), "tenants": None})
    )
    row.times, row.latest_at = 2, get_database_time() - timedelta(minutes=10)
    row.save()
    assert ids(run_export(*cursor)) == [f"security_event:{row.pk}:2"]


@real_transactions
def test_an_event_that_is_committed_late_is_not_missed(nagra: HeadEnd, tmp_path: Path) -> None:
    """Its time is before events that are visible already."""
    statements, output = [], list[dict[str, Any]]()

    def record(execute: Any, sql: str, *arguments: Any) -> Any:
        if "pg_locks" in sql or sql.startswith("BEGIN"):
            statements.append(sql)
        return execute(sql, *arguments)

    def export() -> None:
        with connection.execute_wrapper(record):
            output.extend(run_export("--cursor", str(tmp_path / "cursor")))
        connection.close()

    early = add_event("nagra", 600)
    late = add_event("nagra", 200)
    thread = threading.Thread(target=export)
    with transaction.atomic():
        invisible = add_event("nagra", 400)
        thread.start()
        # It looks for open transactions once more, because there was one.
        wait_until(lambda: len(statements) > 1 or not thread.is_alive(), "the export does not run")
    thread.join(PATIENCE)
    assert ids(output) == [event_id(each) for each in (early, invisible, late)]
    assert run_export("--cursor", str(tmp_path / "cursor")) == []


@real_transactions
def test_a_crash_before_the_cursor_is_stored_repeats_events(nagra: HeadEnd, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    before = json.dumps({"position": iso(get_database_time() - timedelta(minutes=30)), "tenants": None})
    cursor.write_text(before)
    event = add_event("nagra", 1200)
    os.mkfifo(f"{cursor}.new")  # the process waits here for a reader
    with start_export("--cursor", str(cursor)) as process:
        assert process.stdout is not None
        (line,) = parse_lines(process.stdout.readline())
        process.kill()
    assert (line["id"], cursor.read_text()) == (event_id(event), before)
    Path(f"{cursor}.new").unlink()
    assert ids(run_export("--cursor", str(cursor))) == [event_id(event)]
    assert run_export("--cursor", str(cursor)) == []


@real_transactions
def test_a_closed_pipe_ends_the_export_without_moving_the_cursor(nagra: HeadEnd, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    add_many_events("nagra", 200, details={"text": "x" * 2000})  # more than a pipe holds
    with start_export("--cursor", str(cursor)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(parse_lines(process.stdout.readline())) == 1
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
    assert len({*ids(run_export("--cursor", str(cursor)))}) == 200


@real_transactions
def test_follow_exports_new_events_until_sigterm(nagra: HeadEnd, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    old = add_event("nagra")
    with start_export("--follow", "--delay", "1", "--cursor", str(cursor)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert ids(parse_lines(process.stdout.readline())) == [event_id(old)]
        new = add_event("nagra", 0)
        assert ids(parse_lines(process.stdout.readline())) == [event_id(new)]
        wait_until(lambda: is_after(cursor, new), "the cursor is not stored")
        process.send_signal(signal.SIGTERM)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert process.returncode == 0
    assert run_export("--delay", "1", "--cursor", str(cursor)) == []


def is_after(cursor: Path, event: Event) -> bool:
    event.refresh_from_db()
    return datetime.fromisoformat(json.loads(cursor.read_text())["position"]) > event.created_at


@real_transactions
def test_follow_ends_at_until(nagra: HeadEnd) -> None:
    event = add_event("nagra")
    assert ids(run_export("--follow", "--until", iso(get_database_time() - timedelta(minutes=1)))) == [
        event_id(event)
    ]


class Discard:
    """A sink that counts."""

    number = 0

    def write(self, event: Any) -> None:
        self.number += 1

    def flush(self) -> None:
        pass


def test_memory_does_not_grow_with_the_number_of_events(nagra: HeadEnd) -> None:
    def measure_peak(number: int) -> int:
        add_many_events("nagra", number)
        sink = Discard()
        tracemalloc.start()
        EventExport(sink=sink).run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sink.number == Event.unscoped.count()
        return peak

    measure_peak(1)  # imports and caches
    few = measure_peak(2000)
    # A page of 1,000 rows takes 0.5 or 0.8 MB: CPython lays out instances of a class in two ways. If all rows
    # were in memory, the factor would be 9 at least.
    assert measure_peak(20_000) < 3 * few

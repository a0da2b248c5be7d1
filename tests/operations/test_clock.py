"""The clock of the database: its measurement, the log, the system check and readiness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.checks import Tags, run_checks
from django.db import connection
from django.test import Client

from ags.database import clock
from ags.database.clock import get_clock_difference, get_database_time, is_clock_wrong, measure_clock
from ags.explanations.links import LIFETIME
from ags.explanations.models import ExplanationLink
from providers.contract import clock as contract_clock
from providers.contract import current_time
from providers.contract.clock import MAX_DRIFT, DatabaseClock, database_clock
from tenants.models import SigningKey
from tenants.models.signing_key import PUBLICATION_LEAD_TIME
from tenants.rotation import RotationTooEarly, perform_next_step
from tests.support.clients import HeadEnd
from tests.support.explanation_pages import ADD, add_refusal, explain_on_page, find_events
from tests.support.operators import create_operator
from tests.support.staff import person
from tests.support.waiting import PATIENCE

HOUR = timedelta(hours=1)

DIFFERS, AGREES = (
    "the clock differs from that of the database",
    "the clock agrees with that of the database again",
)

moved_clocks = pytest.mark.parametrize("moved", [HOUR, -HOUR], ids=["ahead", "behind"])


@contextmanager
def moved_clock(moved: timedelta) -> Iterator[None]:
    """Move the clock of this machine. On PostgreSQL, that of the database stays."""
    with time_machine.travel(datetime.now(UTC) + moved, tick=True):
        yield


def take(ahead: float, round_trip: float = 0.0) -> None:
    """Take a measurement of the database's clock, which is so many seconds ahead."""
    sent_at = time.monotonic() - round_trip
    database_clock.add(time.time() - round_trip / 2 + ahead, sent_at)


@dataclass
class SetClock:
    """Both clocks of a machine, which stand still."""

    now: float = 1_000_000.0
    elapsed: float = 50.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.elapsed += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    machine = SetClock()
    monkeypatch.setattr(contract_clock, "time", machine)
    return machine


def test_without_a_measurement_the_clock_of_the_machine_is_used(machine: SetClock) -> None:
    here = DatabaseClock()
    assert (here.now(), here.difference, here.uncertainty) == (machine.now, None, 0)


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 2.5, 1e6])
def test_the_time_of_the_database_was_read_in_the_middle_of_the_round_trip(
    machine: SetClock, ahead: float
) -> None:
    here = DatabaseClock()
    here.add(machine.now - 0.25 + ahead, machine.elapsed - 0.5)
    assert (here.now(), here.difference, here.uncertainty) == (machine.now + ahead, ahead, 0.25)


def test_the_time_advances_when_the_clock_of_the_machine_is_changed(machine: SetClock) -> None:
    here = DatabaseClock()
    here.add(machine.now, machine.elapsed)
    time = machine.now
    machine.now += 3600
    machine.advance(7)
    assert (here.now(), here.difference) == (time + 7, -3600)


def test_an_inexact_measurement_replaces_an_exact_one_only_if_it_contradicts_it(machine: SetClock) -> None:
    here = DatabaseClock()
    here.add(machine.now, machine.elapsed)
    for ahead, round_trip, expected in (
        (0.9, 2, (0, 0)),  # it may be 1 second less
        (1.1, 2, (1.1, 1)),  # it cannot: the clock of the database was set
        (1.0, 1, (1.0, 0.5)),  # it is more exact
        (2.6, 2, (2.6, 1)),
        (2.6, 2, (2.6, 1)),  # it is as exact
    ):
        here.add(machine.now - round_trip / 2 + ahead, machine.elapsed - round_trip)
        assert here.difference is not None
        assert (round(here.difference, 6), here.uncertainty) == expected


def test_an_old_measurement_is_less_exact(machine: SetClock) -> None:
    here = DatabaseClock()
    here.add(machine.now, machine.elapsed)
    for elapsed, expected in ((0.9, 0), (1.1, 0.5)):
        machine.advance(elapsed * 0.5 / MAX_DRIFT)
        here.add(machine.now - 0.5, machine.elapsed - 1)
        assert here.uncertainty == expected


@pytest.mark.parametrize(
    ("tolerance", "difference", "is_wrong"),
    [
        (10, 9.0, False),
        (10, 11.0, True),
        (10, -9.0, False),
        (10, -11.0, True),
        (1, 1.5, True),
        (0, 1e6, False),
    ],
)
def test_the_tolerance(settings: Any, tolerance: int, difference: float, is_wrong: bool) -> None:
    settings.AGS_CLOCK_TOLERANCE = tolerance
    take(difference)
    assert is_clock_wrong() is (is_wrong and connection.vendor == "postgresql")


@pytest.mark.postgresql
def test_a_slow_statement_is_no_wrong_clock(settings: Any) -> None:
    settings.AGS_CLOCK_TOLERANCE = 1
    take(3, round_trip=6)
    assert not is_clock_wrong(), "it is between 0 and 6"
    take(20, round_trip=6)
    assert is_clock_wrong()


@pytest.mark.postgresql
def test_the_log_has_a_warning_a_minute_and_a_line_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines() -> list[tuple[str, str, int, str]]:
        fields = [vars(line) for line in caplog.records if line.name == "ags.clock"]
        caplog.clear()
        return [(line["levelname"], line["msg"], round(line["seconds"]), line["clock"]) for line in fields]

    take(4)
    assert lines() == [], "half of the tolerance is not reached"
    take(6)
    take(7)
    assert lines() == [("WARNING", DIFFERS, 6, "behind")]
    monkeypatch.setattr(clock, "WARNING_INTERVAL", 0.0)
    take(-3600)
    assert lines() == [("WARNING", DIFFERS, 3600, "ahead")]
    take(0)
    take(0)
    assert [line[:2] for line in lines()] == [("WARNING", AGREES)]
    take(-6)
    assert [line[:2] for line in lines()] == [("WARNING", DIFFERS)]


@pytest.mark.postgresql
@moved_clocks
def test_readiness_measures_the_clock(db: None, client: Client, moved: timedelta) -> None:
    assert client.get("/readyz").status_code == 200
    with moved_clock(moved):
        database_clock.__init__()  # type: ignore[misc]
        assert client.get("/readyz").status_code == 503
        difference = get_clock_difference()
        assert difference is not None
        assert abs(difference + moved.total_seconds()) < PATIENCE
    assert client.get("/readyz").status_code == 200


@pytest.mark.postgresql
@moved_clocks
def test_a_request_measures_the_clock_before_it_verifies_a_token(nagra: HeadEnd, moved: timedelta) -> None:
    token = nagra.token(iat=int(time.time()))
    with moved_clock(moved):
        assert nagra.present(token).status_code == 200
        assert abs(current_time() - time.time() + moved.total_seconds()) < PATIENCE


@pytest.mark.postgresql
@moved_clocks
def test_the_system_check_names_both_clocks(db: None, moved: timedelta) -> None:
    def messages() -> list[Any]:
        checks = run_checks(tags=[Tags.database], databases=["default"])
        return [message for message in checks if message.id == "operations.W006"]

    assert messages() == []
    with moved_clock(moved):
        (message,) = messages()
        here = datetime.now(UTC)
    there = datetime.now(UTC)
    assert f"is {'ahead' if moved > timedelta(0) else 'behind'}" in message.msg
    for time_of in (here, there):
        assert any(
            f"{time_of - timedelta(seconds=ago):%Y-%m-%d %H:%M:%S} UTC" in message.hint
            for ago in range(int(PATIENCE))
        )


def test_on_sqlite_nothing_is_measured(db: None, nagra: HeadEnd) -> None:
    measure_clock()
    assert nagra.present(nagra.token()).status_code == 200
    assert nagra.client.get("/readyz").status_code == 200
    if connection.vendor == "sqlite":
        assert database_clock.difference is None
        assert get_clock_difference() == 0
    else:
        assert abs(database_clock.difference or HOUR.total_seconds()) < PATIENCE


@moved_clocks
def test_a_signing_key_is_published_and_activated_by_the_databases_clock(db: None, moved: timedelta) -> None:
    before = get_database_time()
    with moved_clock(moved):
        create_operator("other", bytes(range(32)))
        with pytest.raises(RotationTooEarly):
            perform_next_step("other")
    staged = SigningKey.objects.for_tenant("other").get(state="staged")
    assert abs(staged.published_at - before).total_seconds() < PATIENCE
    SigningKey.unscoped.update(published_at=get_database_time() - PUBLICATION_LEAD_TIME)
    with moved_clock(moved):
        assert perform_next_step("other")[1].state == "active"


@moved_clocks
def test_an_explanation_link_expires_by_the_databases_clock(nagra: HeadEnd, moved: timedelta) -> None:
    add_refusal()
    browser = person("support", "nagra")
    (event,) = find_events(explain_on_page(browser, "call-9"))
    with moved_clock(moved):
        assert browser.post(ADD, {"event": event}).status_code == 200
    left = ExplanationLink.unscoped.get().expires_at - get_database_time()
    assert abs(left - LIFETIME).total_seconds() < PATIENCE

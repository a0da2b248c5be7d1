"""`manage.py export_events`: print the audit trail as JSON lines, or send it to syslog."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from ags.operations.event_export import DELAY, Cursor, EventExport, ExportFailed
from ags.operations.event_sinks import LineSink, OutputClosed, SyslogAddress, SyslogSink
from tenants.models import Tenant

MAX_DELAY = 86_400

PIPE_STATUS = 128 + signal.SIGPIPE
"""The exit status that a shell shows for a program that a closed pipe has ended."""


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "must be a time of ISO 8601, such as 2026-11-30T20:15:00Z; without an offset, it is UTC"
        ) from None


def _delay(text: str) -> timedelta:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= MAX_DELAY:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to {MAX_DELAY}")
    return timedelta(seconds=int(text))


def _syslog_address(text: str) -> SyslogAddress:
    try:
        return SyslogAddress.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be HOST:PORT for TCP, udp:HOST:PORT, or the absolute path of a Unix socket"
        ) from None


class Command(BaseCommand):
    help = (
        "Print the events of the audit trail, oldest first, one JSON object per line. With --cursor, each "
        "run continues where the last one has ended. After a crash, events of up to an hour are repeated "
        "with the same id. See docs/running/audit-export.md for the format."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--tenant",
            action="append",
            help="a tenant ID, can be repeated; by default all events, also those of no tenant",
        )
        parser.add_argument(
            "--since",
            type=_time,
            metavar="TIME",
            help="begin with events of this time (ISO 8601), not with the oldest; a cursor replaces it",
        )
        parser.add_argument("--until", type=_time, metavar="TIME", help="end before events of this time")
        parser.add_argument(
            "--cursor",
            type=Path,
            metavar="FILE",
            help="continue at the position in this file, and store the new position",
        )
        parser.add_argument("--follow", action="store_true", help="keep running and export new events")
        parser.add_argument(
            "--delay",
            type=_delay,
            default=DELAY,
            metavar="SECONDS",
            help=f"export events this long after their time, 1 to {MAX_DELAY}; {DELAY.seconds} by default",
        )
        parser.add_argument(
            "--syslog",
            type=_syslog_address,
            metavar="ADDRESS",
            help="send events as RFC 5424 to HOST:PORT (TCP), udp:HOST:PORT or the path of a Unix socket, "
            "instead of standard output",
        )

    def handle(
        self,
        *args: Any,
        tenant: list[str] | None,
        since: datetime | None,
        until: datetime | None,
        cursor: Path | None,
        follow: bool,
        delay: timedelta,
        syslog: SyslogAddress | None,
        **options: Any,
    ) -> None:
        if tenant is not None:
            known = set(Tenant.objects.filter(pk__in=tenant).values_list("pk", flat=True))
            if unknown := sorted(set(tenant) - known):
                raise CommandError(f"Tenant {unknown[0]} does not exist.")
            tenant = sorted(known)
        position = None if cursor is None else Cursor(cursor, tenant)
        try:
            with _sink(syslog, self.stdout) as sink, _stoppable(follow):
                export = EventExport(
                    sink=sink, tenant_ids=tenant, since=since, until=until, delay=delay, cursor=position
                )
                export.run(follow=follow)
        except _Stopped:
            return
        except OutputClosed:
            # Python would report the closed pipe once more when it flushes standard output at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(PIPE_STATUS)
        except ExportFailed as error:
            raise CommandError(str(error)) from None
        except (OperationalError, InterfaceError) as error:
            raise CommandError(f"The database is unavailable: {error}") from None
        except OSError as error:
            where = error.filename or ("syslog" if syslog else "standard output")
            raise CommandError(f"{where}: {error.strerror or error}") from None


@contextmanager
def _sink(address: SyslogAddress | None, stdout: Any) -> Iterator[LineSink | SyslogSink]:
    if address is None:
        yield LineSink(stdout)
        return
    with closing(SyslogSink(address)) as sink:
        yield sink


class _Stopped(BaseException):
    """A signal has ended the command. The cursor has the end of the last window."""


@contextmanager
def _stoppable(follow: bool) -> Iterator[None]:
    """End on SIGTERM and SIGINT, also within a window."""
    if not follow or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`manage.py explain`: why a request was refused, or what a token would get now."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.database.clock import measure_clock
from ags.explanations.explanation import Explanation
from ags.explanations.lookup import explain_absence, explain_request
from ags.explanations.token import NotAToken, explain_token
from providers.contract import PARAMETER_MAX_LENGTH

STDIN_ONLY = (
    "--token reads the token from standard input only: write --token -. Others can read what is on the "
    "command line."
)


class Command(BaseCommand):
    help = (
        "Explain all requests with a correlation ID: each check with its outcome, what was refused, the side "
        "at fault and the remedy. With --token -, explain what a token on standard input would get now; "
        "nothing is issued, stored or used up. Exit status: 0; 1 if nothing was found, or if the token would "
        "be refused."
    )
    requires_system_checks = ["providers"]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("correlation_id", nargs="?", metavar="CORRELATION_ID")
        parser.add_argument("--tenant", help="show only requests of this tenant; required with --token")
        parser.add_argument("--token", metavar="-", help="read a token from standard input")
        parser.add_argument("--service", help="the name of the service that verifies the token")
        parser.add_argument(
            "--parameter",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="another parameter of the service, such as Nonce; can be repeated",
        )

    def handle(self, *args: Any, correlation_id: str | None, token: str | None, **options: Any) -> None:
        if (correlation_id is None) == (token is None):
            raise CommandError("Give either a correlation ID or --token -.")
        if token is not None:
            self._explain_token(token, **options)
            return
        tenants = [options["tenant"]] if options["tenant"] else None
        explanations = explain_request(str(correlation_id), tenants)
        if not explanations:
            reasons = "\n".join(f"- {reason}" for reason in explain_absence(tenants))
            raise CommandError(f"Nothing is stored about {correlation_id!r}. Possible reasons:\n{reasons}")
        self.stdout.write(f"\n\n{'-' * 72}\n\n".join(map(_format, explanations)))

    def _explain_token(
        self, token: str, *, tenant: str | None, service: str | None, parameter: list[str], **_: Any
    ) -> None:
        if token != "-":  # noqa: S105 - the only value
            raise CommandError(STDIN_ONLY)
        if not tenant or not service:
            raise CommandError("--token needs --tenant and --service.")
        text = sys.stdin.read(PARAMETER_MAX_LENGTH + 2).strip()
        others = {name: value for name, _, value in (pair.partition("=") for pair in parameter)}
        try:
            measure_clock()
            explanation = explain_token(tenant, service, text, others)
        except NotAToken as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(_format(explanation))
        if explanation.side is not None:
            sys.exit(1)


def _format(explanation: Explanation) -> str:
    sections = [
        _format_table(explanation.head),
        "\n".join(_list_sentences(explanation)),
        _format_table(explanation.checks),
        _format_table(explanation.facts),
    ]
    return "\n\n".join(filter(None, sections))


def _list_sentences(explanation: Explanation) -> Iterator[str]:
    yield explanation.summary
    yield from explanation.since
    if explanation.fault:
        *fault, what_to_do = explanation.fault
        yield " ".join(f"{label}: {value}." for label, value in fault)
        yield ": ".join(what_to_do)


def _format_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return aligned rows."""
    width = max((len(name) for name, _ in rows), default=0) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)

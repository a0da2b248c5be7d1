"""What the rounds of a kind of work come to, system by system; and what AGS is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.measuring import Round, ran_out
from bench.rounds import ratio
from bench.systems.ags import AGS
from bench.systems.floor import FLOOR
from bench.systems.oidc_provider import OIDC_PROVIDER
from bench.systems.release import RELEASE

STORING = {"getSessionToken", "signOnWithSessionToken", "refresh"}
"""The kinds of work whose answers are worth nothing unless something is stored."""

TOLERATED = 0.1
"""The share of the machine that others may have, the kernel's own work among them, before it is told."""

CONNECTIONS = 16
MORE_CONNECTIONS = {"getSessionToken": (1, 64)}
"""Over how many connections each kind of work is measured, and some kinds once more."""

COMPARED = {
    FLOOR.name: "the asynchronous floor",
    OIDC_PROVIDER.name: OIDC_PROVIDER.name,
    RELEASE.name: RELEASE.name,
}
"""The systems that others are compared with, and their names in a sentence."""

RATIOS = {"per_second": "throughput", "p99": "p99"}
"""The figures that are compared."""


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that AGS has to reach: at least `value` times a figure of a system, or at most that."""

    work: str
    figure: str
    of: str
    value: float
    connections: int = CONNECTIONS
    at_most: bool = False

    def met(self, figure: float) -> bool:
        """Whether it is."""
        return figure <= self.value if self.at_most else figure >= self.value


TARGETS = (
    Target("getSessionToken", "per_second", OIDC_PROVIDER.name, 2.5),
    Target("getSessionToken", "p99", OIDC_PROVIDER.name, 0.5, at_most=True),
    Target("getSessionToken", "per_second", OIDC_PROVIDER.name, 1.75, connections=1),
    Target("getSessionToken", "per_second", OIDC_PROVIDER.name, 2.8, connections=64),
    Target("getSessionToken", "per_second", FLOOR.name, 0.6),
    Target("signOnWithSessionToken", "per_second", RELEASE.name, 1.6),
    Target("refresh", "per_second", RELEASE.name, 2.0),
    Target("introspection", "per_second", RELEASE.name, 1.6),
    Target("discovery", "per_second", RELEASE.name, 2.0),
)

Rounds = Mapping[str, list[Round]]
"""The rounds of each system, in order: the same number for each."""


def summary(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Return the figures of each system."""
    return {name: _figures(rounds, name) for name, of_it in rounds.items() if of_it}


def _figures(rounds: Rounds, name: str) -> dict[str, Any]:
    mine = rounds[name]
    each = [one.per_second for one in mine]
    medians = ("p50", "p99", "cpu_server", "cpu_postgresql", "cpu_generator", "idle", "others")
    return {
        "per_second": median(each),
        "slowest": min(each),
        "fastest": max(each),
        **{figure: median(getattr(one, figure) for one in mine) for figure in medians},
        "ratios": {
            other: {figure: ratio(mine, rounds[other], figure) for figure in RATIOS}
            for other in COMPARED
            if rounds.get(other)
        },
        "ran_out": ran_out(mine),
        "rounds": [asdict(one) for one in mine],
    }


def connections(work: str) -> tuple[int, ...]:
    """Return over how many connections a kind of work is measured, time after time."""
    return CONNECTIONS, *MORE_CONNECTIONS.get(work, ())


def heading(work: str, number: int) -> str:
    """Name a kind of work over so many connections."""
    return f"{work}, {number} {'connection' if number == 1 else 'connections'}"


def judged(work: Mapping[str, Mapping[int, Mapping[str, Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Return each target, with what AGS has reached where it was measured, and whether that is enough.

    `work` has the summaries by kind of work and number of connections.
    """
    found = []
    for target in TARGETS:
        figures = work.get(target.work, {}).get(target.connections, {}).get(AGS.name, {"ratios": {}})
        reached = figures["ratios"].get(target.of, {}).get(target.figure)
        met = None if reached is None else target.met(reached)
        found.append({**asdict(target), "reached": reached, "met": met})
    return found


def table(work: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of a kind of work, in Markdown."""
    head = (
        work,
        "per second (min to max)",
        *("p50 ms", "p99 ms"),
        *(f"of {system}" for system in COMPARED.values()),
        *("CPU µs: server", "PostgreSQL", "generator", "what ran out first"),
    )
    rows = [head, tuple("---" for _ in head), *(_row(name, of_it) for name, of_it in figures.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def disturbed(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the systems beside which others had a share of the machine that counts."""
    shares = {name: of_it["others"] for name, of_it in figures.items()}
    return ", ".join(f"{share:.0%} beside {name}" for name, share in shares.items() if share > TOLERATED)


def _row(name: str, of_it: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{of_it['per_second']:,.0f} ({of_it['slowest']:,.0f} to {of_it['fastest']:,.0f})",
        *(f"{of_it[figure]:.1f}" for figure in ("p50", "p99")),
        *(f"{of_it['ratios'][one]['per_second']:.2f}" if one in of_it["ratios"] else "" for one in COMPARED),
        *(f"{of_it[figure]:,.0f}" for figure in ("cpu_server", "cpu_postgresql", "cpu_generator")),
        of_it["ran_out"],
    )


def said(judgement: Mapping[str, Any]) -> str:
    """Return one line about a target."""
    how = {None: "not measured", True: "met", False: "NOT MET"}[judgement["met"]]
    reached = "" if judgement["reached"] is None else f", reached {judgement['reached']:.2f}"
    bound = "at most" if judgement["at_most"] else "at least"
    work = heading(judgement["work"], judgement["connections"])
    of = f"the {RATIOS[judgement['figure']]} of {COMPARED[judgement['of']]}"
    return f"{how:>12}  {work}: {bound} {judgement['value']:g} times {of}{reached}"

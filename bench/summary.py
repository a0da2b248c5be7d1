"""The results of a kind of work for each system, and the targets of AGS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.measuring import Round, find_bottleneck
from bench.rounds import ratio
from bench.systems.ags import AGS
from bench.systems.floor import FLOOR
from bench.systems.oidc_provider import OIDC_PROVIDER
from bench.systems.release import RELEASE

STORING = {"getSessionToken", "signOnWithSessionToken", "refresh"}
"""The kinds of work whose responses must be stored."""

MAX_OTHERS = 0.1
"""The largest share of the machine for other processes and the kernel that is not reported."""

CONNECTIONS = 16
MORE_CONNECTIONS = {"getSessionToken": (1, 64)}
"""The connections of each kind of work, and further numbers of connections of some kinds."""

COMPARED = {
    FLOOR.name: "the asynchronous floor",
    OIDC_PROVIDER.name: OIDC_PROVIDER.name,
    RELEASE.name: RELEASE.name,
}
"""The systems that others are compared with, and their names in text."""

RATIOS = {"per_second": "throughput", "p99": "p99"}
"""The figures that are compared."""


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that AGS must reach: at least `value` times the figure of another system, or at most."""

    work: str
    figure: str
    of: str
    value: float
    connections: int = CONNECTIONS
    at_most: bool = False

    def met(self, figure: float) -> bool:
        """Return True if the ratio reaches the target."""
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
"""The rounds of each system in order, the same number for each."""


def summary(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Return the figures of each system."""
    return {name: _figures(rounds, name) for name, of_system in rounds.items() if of_system}


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
        "ran_out": find_bottleneck(mine),
        "rounds": [asdict(one) for one in mine],
    }


def connections(work: str) -> tuple[int, ...]:
    """Return the numbers of connections with which a kind of work is measured."""
    return CONNECTIONS, *MORE_CONNECTIONS.get(work, ())


def heading(work: str, number: int) -> str:
    """Return the heading of a kind of work with a number of connections."""
    return f"{work}, {number} {'connection' if number == 1 else 'connections'}"


def check_targets(work: Mapping[str, Mapping[int, Mapping[str, Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Return each target with the ratio that AGS reached, and if it is met; None if it was not measured.

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
    """Return the figures of a kind of work as a Markdown table."""
    head = (
        work,
        "per second (min to max)",
        *("p50 ms", "p99 ms"),
        *(f"of {system}" for system in COMPARED.values()),
        *("CPU µs: server", "PostgreSQL", "generator", "what ran out first"),
    )
    rows = [head, tuple("---" for _ in head), *(_row(name, row) for name, row in figures.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"| {line} |" for line in lines)


def find_disturbance(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the systems during which other processes used more than `MAX_OTHERS`, with the share."""
    shares = {name: row["others"] for name, row in figures.items()}
    return ", ".join(f"{share:.0%} during {name}" for name, share in shares.items() if share > MAX_OTHERS)


def _row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{figures['per_second']:,.0f} ({figures['slowest']:,.0f} to {figures['fastest']:,.0f})",
        *(f"{figures[figure]:.1f}" for figure in ("p50", "p99")),
        *(
            f"{figures['ratios'][one]['per_second']:.2f}" if one in figures["ratios"] else ""
            for one in COMPARED
        ),
        *(f"{figures[figure]:,.0f}" for figure in ("cpu_server", "cpu_postgresql", "cpu_generator")),
        figures["ran_out"],
    )


def describe_target(target: Mapping[str, Any]) -> str:
    """Return a line about a target."""
    how = {None: "not measured", True: "met", False: "NOT MET"}[target["met"]]
    reached = "" if target["reached"] is None else f", reached {target['reached']:.2f}"
    bound = "at most" if target["at_most"] else "at least"
    work = heading(target["work"], target["connections"])
    of = f"the {RATIOS[target['figure']]} of {COMPARED[target['of']]}"
    return f"{how:>12}  {work}: {bound} {target['value']:g} times {of}{reached}"

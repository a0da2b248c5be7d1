"""What the rounds of a kind of work come to, system by system; and what AGS is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.measuring import Round, ran_out
from bench.rounds import ratio

STORING = {"getSessionToken", "signOnWithSessionToken", "refresh"}
"""The kinds of work whose answers are worth nothing unless something is stored."""

TOLERATED = 0.1
"""The share of the machine that others may have, the kernel's own work among them, before it is told."""

AGS, FLOOR = "AGS", "floor"

OF_FLOOR, OF_BEST_PEER, P99_OF_FLOOR = "of_floor", "of_best_peer", "p99_of_floor"
SAID = {
    OF_FLOOR: "times the floor's throughput",
    OF_BEST_PEER: "times the best peer's throughput",
    P99_OF_FLOOR: "times the floor's p99",
    "per_second": "per second",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of AGS is to be: at least, or at most where less is better."""

    work: str
    figure: str
    value: float
    at_most: bool = False

    def met(self, figure: float) -> bool:
        """Whether it is."""
        return figure <= self.value if self.at_most else figure >= self.value


TARGETS = (
    Target("getSessionToken", OF_FLOOR, 0.7),
    Target("getSessionToken", OF_BEST_PEER, 2.2),
    Target("getSessionToken", P99_OF_FLOOR, 2.0, at_most=True),
    Target("signOnWithSessionToken", OF_FLOOR, 0.6),
    Target("refresh", OF_FLOOR, 0.6),
    Target("introspection", OF_FLOOR, 0.7),
    Target("discovery", "per_second", 5000.0),
)

Rounds = Mapping[str, list[Round]]
"""The rounds of each system, in order: the same number for each."""


def summary(rounds: Rounds, connections: int) -> dict[str, dict[str, Any]]:
    """Return the figures of each system."""
    best = _best_peer(rounds)
    return {name: _figures(rounds, name, best, connections) for name, of_it in rounds.items() if of_it}


def _best_peer(rounds: Rounds) -> str | None:
    peers = {name: of_it for name, of_it in rounds.items() if name not in {AGS, FLOOR} and of_it}
    return max(peers, key=lambda name: median(one.per_second for one in peers[name]), default=None)


def _figures(rounds: Rounds, name: str, best: str | None, connections: int) -> dict[str, Any]:
    mine = rounds[name]
    each = [one.per_second for one in mine]
    medians = ("p50", "p99", "cpu_server", "cpu_postgresql", "cpu_generator", "idle", "others")
    return {
        "per_second": median(each),
        "slowest": min(each),
        "fastest": max(each),
        **{figure: median(getattr(one, figure) for one in mine) for figure in medians},
        OF_FLOOR: _ratio(mine, rounds.get(FLOOR), "per_second"),
        P99_OF_FLOOR: _ratio(mine, rounds.get(FLOOR), "p99"),
        OF_BEST_PEER: _ratio(mine, rounds.get(best) if best else None, "per_second"),
        "ran_out": ran_out(mine, connections),
        "rounds": [asdict(one) for one in mine],
    }


def _ratio(mine: list[Round], other: list[Round] | None, figure: str) -> float | None:
    return ratio(mine, other, figure) if other else None


def judged(work: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return each target, with what AGS has reached where it was measured, and whether that is enough."""
    found = []
    for target in TARGETS:
        reached = work.get(target.work, {}).get(AGS, {}).get(target.figure)
        met = None if reached is None else target.met(reached)
        found.append({**asdict(target), "reached": reached, "met": met})
    return found


def table(work: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of a kind of work, in Markdown."""
    head = (
        work,
        "per second (min to max)",
        *("p50 ms", "p99 ms", "of the floor", "of the best peer"),
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
        *("" if of_it[figure] is None else f"{of_it[figure]:.2f}" for figure in (OF_FLOOR, OF_BEST_PEER)),
        *(f"{of_it[figure]:,.0f}" for figure in ("cpu_server", "cpu_postgresql", "cpu_generator")),
        of_it["ran_out"],
    )


def said(judgement: Mapping[str, Any]) -> str:
    """Return one line about a target."""
    how = {None: "not measured", True: "met", False: "NOT MET"}[judgement["met"]]
    reached = "" if judgement["reached"] is None else f": {judgement['reached']:,.2f}"
    bound = "at most" if judgement["at_most"] else "at least"
    wanted = f"{judgement['work']}, {bound} {judgement['value']:,g} {SAID[judgement['figure']]}"
    return f"{how:>12}  {wanted}{reached}"

"""What a row of the faults has seen, and the checks of traffic that several rows share."""

from __future__ import annotations

import time

from tests.faults.traffic import Samples

SERVED, SLOWER, HEALTH = 0.999, 2.0, 100.0
"""Of good traffic; times its usual p99; milliseconds."""

WARM_UP, USUAL, BESIDE = 3.0, 10.0, 15.0
"""Seconds of traffic at first, before a fault, and beside it."""


class Result:
    """What was seen of a row, and whether it holds."""

    def __init__(self) -> None:
        self.holds = True
        self.text: list[str] = []

    def check(self, holds: bool, text: str) -> None:
        """Note something that must hold."""
        self.holds &= holds
        self.text.append(text if holds else f"**{text}**")

    def note(self, text: str) -> None:
        """Note something that is only worth knowing."""
        self.text.append(text)


def warm_up() -> float:
    """Let traffic warm up, then run as usual; return when the usual began."""
    time.sleep(WARM_UP)
    began = time.monotonic()
    time.sleep(USUAL)
    return began


def check_good_traffic(
    result: Result, samples: dict[str, Samples], usual: float, began: float, ended: float
) -> None:
    """Compare good traffic beside a fault with the usual before it; check the probes of health."""
    before, beside = samples["good"].between(usual, began), samples["good"].between(began, ended)
    failed, p99 = beside.failed(), beside.percentile(0.99)
    served = 1 - len(failed) / len(beside)
    if before.failed():
        result.check(False, f"{len(before.failed())} of {len(before)} failed before the fault")
    result.check(served >= SERVED, f"{served:.2%} of {len(beside)} served ({beside.statuses()})")
    result.check(
        p99 <= SLOWER * before.percentile(0.99),
        f"p50 {beside.percentile(0.5):.0f}, p99 {p99:.0f} ms, before "
        f"{before.percentile(0.5):.0f}, {before.percentile(0.99):.0f} ms",
    )
    before, beside = samples["probe"].between(usual, began), samples["probe"].between(began, ended)
    longest, usually = beside.percentile(1), before.percentile(1)
    result.check(
        not beside.failed() and longest < HEALTH,
        f"health at most {longest:.0f} ms, before {usually:.0f} ({beside.statuses()})",
    )
    late = samples["timer"]
    result.note(
        f"a timer at most {late.between(began, ended).percentile(1):.0f} ms late, "
        f"before {late.between(usual, began).percentile(1):.0f}"
    )


def check_no_failure(result: Result, samples: dict[str, Samples]) -> None:
    """Check that every request was answered with 200, and a wrong proof with 401."""
    for name in samples.keys() - {"probe", "timer"}:
        failed = samples[name].failed(401 if name == "wrong" else 200)
        text = f"{name}: {len(failed)} of {len(samples[name])} failed"
        result.check(not failed, text + (f" ({failed.statuses()})" if failed else ""))

"""Metrics that processes share: torn writes, killed processes, and limits for time series."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ags.operations.metrics import Request, count_request, processes, requests
from ags.operations.metrics.values import OTHER, Values
from ags.server.shared_data import MAX_BYTES, SharedData, _offset


@pytest.fixture
def data() -> Iterator[SharedData]:
    with closing(SharedData()) as opened:
        yield opened


def test_a_slot_has_the_data_that_were_written_last(data: SharedData) -> None:
    assert data.read(3) is None
    for number in range(5):
        data.write(3, f"write {number}".encode())
        assert data.read(3) == f"write {number}".encode()
    data.write(0, b"another process")
    assert dict(data.read_all()) == {0: b"another process", 3: b"write 4"}


@pytest.mark.parametrize("half", [0, 1])
def test_a_write_that_is_not_completed_leaves_the_data_before_it(data: SharedData, half: int) -> None:
    numbers = range(1, 3 + half)  # the last write is in this half
    for number in numbers:
        data.write(2, b"x" * 1000 + str(number).encode())
    os.pwrite(data._fd, b"torn", _offset(2, numbers[-1] % 2) + 500)
    assert data.read(2) == b"x" * 1000 + str(numbers[-1] - 1).encode()
    data.write(2, b"the next process")
    assert data.read(2) == b"the next process"


def test_data_that_are_too_long_are_rejected(data: SharedData) -> None:
    data.write(0, b"before")
    with pytest.raises(ValueError, match="too much"):
        data.write(0, bytes(MAX_BYTES + 1))
    assert data.read(0) == b"before"


def test_gauges_of_a_killed_process_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Values] = {
        "ags_requests": {("/a", "", "", "answered", ""): 3},
        "ags_processes": {(): 1},
    }
    written = processes._encode(values, alive=True)
    assert dict(processes._decode(written)) == values
    later = time.monotonic() + processes.MAX_AGE
    monkeypatch.setattr(processes.time, "monotonic", lambda: later)  # type: ignore[attr-defined]
    assert dict(processes._decode(written)) == {"ags_requests": values["ags_requests"]}
    assert dict(processes._decode(processes._encode(values, alive=False))) == {
        "ags_requests": values["ags_requests"]
    }


@pytest.mark.usefixtures("no_requests")
def test_time_series_beyond_the_limit_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_SERIES", 2)
    for number in range(5):
        count_request(Request("/a", None, None, "refused", f"reason {number}", None), 0.5)
    counted = dict(requests.read_requests())
    assert sum(counted.values()) == 5
    assert counted["/a", "", "", "refused", "reason 0"] == 1
    assert counted["/a", OTHER, OTHER, "refused", "reason 4"] == 1


@pytest.mark.usefixtures("no_requests")
def test_names_that_callers_choose_take_limited_memory() -> None:
    for number in range(3 * requests.MAX_PENDING):
        count_request(Request("/a", f"tenant-{number}", f"service-{number}", "refused", "x", None), None)
        assert len(requests._pending) < requests.MAX_PENDING
    assert requests.read_requests() == {("/a", OTHER, OTHER, "refused", "x"): 3 * requests.MAX_PENDING}


@pytest.fixture
def no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    requests.read_requests()
    monkeypatch.setattr(requests, "_requests", {})

"""The work of a call, as a number that does not depend on a clock or a machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sized
from types import FrameType
from typing import Any

_TEXTS = (str, bytes, bytearray, memoryview)


def count_work(call: Callable[[], Any]) -> int:
    """Return the number of instructions that Python executes for `call`, plus the characters that C reads.

    A method of a string, such as `find` or `split`, counts as many characters as the string has, because it
    may read all of them. So a loop of few instructions over calls that each read the whole string is
    detected. Regular expressions are not counted: `test_patterns.py` restricts each to a linear form.
    """
    count = 0

    def instruction(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return instruction

    def call_of_c(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal count
        if event == "c_call":
            text = getattr(function, "__self__", None)
            count += len(text) if isinstance(text, _TEXTS) and isinstance(text, Sized) else 0

    before = sys.gettrace(), sys.getprofile()
    gc.disable()  # it would finalize objects of other tests
    sys.setprofile(call_of_c)
    sys.settrace(instruction)
    try:
        call()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return count

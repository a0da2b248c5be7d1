"""The work that a call does, as a number that no clock and no other machine changes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sized
from types import FrameType
from typing import Any

_TEXTS = (str, bytes, bytearray, memoryview)


def work_of(call: Callable[[], Any]) -> int:
    """Return how many instructions Python executes for `call`, and how many characters it hands to C.

    A method of a text, such as `find` or `split`, counts as many characters as that text has, for it may look
    at all of them. So a loop of few instructions over calls that each look at the whole is seen for what it
    is. What a regular expression does is not seen: `test_patterns.py` holds each to a form that is linear.
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
    gc.disable()  # what it finalizes, others have left
    sys.setprofile(call_of_c)
    sys.settrace(instruction)
    try:
        call()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return count

"""The documentation explains every error, reason in the log, log message, metric and system check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ags.api.errors import REGISTRY, Error, as_api_error
from ags.explanations.reasons import REASONS
from ags.sessions.exceptions import InvalidReason, RejectReason, TokenRejected
from providers.contract import FailureReason, UpstreamFailure, UpstreamUnavailable, VerificationFailed

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/symptoms.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)

REFUSALS: tuple[Exception, ...] = (
    *map(VerificationFailed, FailureReason),
    *map(UpstreamUnavailable, UpstreamFailure),
    *map(TokenRejected, RejectReason),
    *map(TokenRejected, InvalidReason),
)


def found_in_sources(pattern: str) -> set[str]:
    """Return all texts that match the group of a pattern in the product."""
    files = (file for folder in ("ags", "tenants", "providers") for file in (ROOT / folder).rglob("*.py"))
    return {text for file in files for text in re.findall(pattern, file.read_text(encoding="utf-8"))}


def sections_about(code: int, reason: str) -> Iterator[str]:
    """Yield the sections that contain both."""
    for section in SECTIONS:
        if re.search(rf"\b{code}\b", section) and f"`{reason}`" in section:
            yield section


@pytest.mark.parametrize("error", REGISTRY, ids=lambda error: str(error.code))
def test_every_error_has_a_section(error: Error) -> None:
    assert list(sections_about(error.code, error.reason))


@pytest.mark.parametrize("exception", REFUSALS, ids=repr)
def test_every_reason_in_the_log_is_in_the_section_of_its_code(exception: Exception) -> None:
    refusal = as_api_error(exception)
    assert list(sections_about(refusal.error.code, refusal.log_reason))


def other_reasons() -> set[str]:
    return found_in_sources(r'(?:log_reason=|entry\.reason = |log_reason="\w+" if \w+ else )"(\w+)"')


def test_every_other_reason_in_the_log_is_explained() -> None:
    literals = other_reasons()
    assert {"stopping", "waited_too_long", "database_unavailable", "disconnected"} <= literals
    assert {reason for reason in literals if f"`{reason}`" not in PAGE} == set()


def test_manage_py_explain_has_the_same_reasons() -> None:
    codes = {error.reason for error in REGISTRY} | {as_api_error(refusal).log_reason for refusal in REFUSALS}
    assert set(REASONS) == codes | other_reasons()
    assert {code for code in REASONS if f"`{code}`" not in PAGE} == set()


def test_every_log_message_is_explained() -> None:
    messages = found_in_sources(r'\blog\.(?:info|warning|error)\(\s*"([^"%:]+)')
    assert {"service not offered", "database_behind", "crash", "starting"} <= messages
    assert {message for message in messages if f"`{message}`" not in PAGE} == set()


def test_every_system_check_is_explained() -> None:
    ids = found_in_sources(r'"((?:operations|tenants|providers)\.[EWI]\d{3})"')
    assert {"operations.W003", "tenants.I001", "providers.E009"} <= ids
    named = set(re.findall(r"`((?:operations|tenants|providers)\.[EWI]\d{3})`", SECTIONS[-1]))
    assert named == ids

"""The response of an upstream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.strict_json import NotStrictJSON, parse

DEPTH = 8  # maximum nesting of the JSON in a response


def invalid_response(detail: str) -> UpstreamUnavailable:
    """Return the exception for an invalid response. `detail` is that of `UpstreamUnavailable`."""
    return UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, detail)


@dataclass(frozen=True, slots=True)
class Response:
    """A response. Names of headers are in lower case; `body` excludes a UTF-8 BOM."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises `UpstreamUnavailable(RESPONSE_INVALID)`."""
        try:
            value = parse(self.body, DEPTH)
        except NotStrictJSON:
            value = None
        if not isinstance(value, dict):
            raise invalid_response("its response is not a JSON object")
        return value

    def unavailable(self) -> UpstreamUnavailable:
        """Return the exception for an unexpected status."""
        if self.status in {401, 403}:
            return UpstreamUnavailable(UpstreamFailure.CREDENTIALS_REJECTED)
        is_temporary = self.status == 429 or self.status >= 500
        failure = UpstreamFailure.UNREACHABLE if is_temporary else UpstreamFailure.RESPONSE_INVALID
        return UpstreamUnavailable(failure, f"it responds with {self.status}")

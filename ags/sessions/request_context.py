"""What the audit trail records about the request that causes an event."""

from typing import Protocol


class RequestContext(Protocol):
    """`kid`: the key ID in the token of the request, verified or not.

    Services set `account_id` and `client_id` as soon as they are known, so that a refusal contains them.
    """

    correlation_id: str
    client_address: str | None
    kid: str | None
    account_id: str | None
    client_id: str | None

"""Whether what was issued still stands: the one rule, for every kind of token and every level of revocation.

It is SQL, so that the statement that decides asks the rows themselves. Every statement that grants or tells
something about a token uses it; nothing else does.
"""

from __future__ import annotations

from ags.sessions.exceptions import InvalidReason
from tenants.models import IN_FORCE

KEY_STATES = ", ".join(f"'{state}'" for state in IN_FORCE)
"""The states of a key that is in force, as they stand in a statement."""

_TENANT_AND_SERVICE = (
    ("NOT t.enabled", InvalidReason.TENANT_NOT_AVAILABLE),
    ("NOT s.enabled", InvalidReason.SERVICE_NOT_AVAILABLE),
)
_KEY = (
    (
        f"k.state NOT IN ({KEY_STATES})"
        " OR k.not_before > CURRENT_TIMESTAMP OR k.not_after <= CURRENT_TIMESTAMP",
        InvalidReason.KEY_NOT_IN_FORCE,
    ),
)
_ACCOUNT = (
    ("a.status = 'cancelled'", InvalidReason.ACCOUNT_CANCELLED),
    ("a.status = 'suspended'", InvalidReason.ACCOUNT_SUSPENDED),
)


def _key_exists(of: str) -> tuple[str, InvalidReason]:
    # Nobody deletes a key here; what somebody else has deleted proves nothing any more.
    return f"{of}.key_id IS NOT NULL AND k.id IS NULL", InvalidReason.KEY_NOT_IN_FORCE


_DEVICE = (
    ("d.status = 'deleted'", InvalidReason.DEVICE_DELETED),
    ("d.status = 'disabled'", InvalidReason.DEVICE_DISABLED),
    ("d.ended_at IS NOT NULL OR d.fixed_expires_at <= CURRENT_TIMESTAMP", InvalidReason.SIGN_ON_ENDED),
)


def _issued_before_revocation(proven_at: str) -> tuple[str, InvalidReason]:
    # The newest cut-off wins: whatever was proven up to any of them is dead.
    older = (f"{proven_at} <= {level}.revoked_before" for level in ("t", "s", "k", "a"))
    return " OR ".join(older), InvalidReason.REVOKED


def _first_match(*rules: tuple[str, InvalidReason]) -> str:
    return "CASE " + " ".join(f"WHEN {condition} THEN '{fault}'" for condition, fault in rules) + " END"


SESSION_TOKEN_INVALID_REASON = _first_match(
    *_TENANT_AND_SERVICE, _key_exists("st"), *_KEY, *_ACCOUNT, _issued_before_revocation("st.created_at")
)
"""The fault of a session token `st`, as an expression; NULL when it stands. Its key must be in force."""

_SIGN_ON_RULES = (
    *_TENANT_AND_SERVICE,
    _key_exists("d"),
    *_ACCOUNT,
    *_DEVICE,
    _issued_before_revocation("d.proven_at"),
)

SIGN_ON_INVALID_REASON = _first_match(*_SIGN_ON_RULES)
"""The fault of the sign-on of a device `d`, and so of its tokens. A key may be rotated out meanwhile."""


ACCESS_TOKEN_INVALID_REASON = _first_match(
    *_SIGN_ON_RULES,
    (
        "EXISTS (SELECT 1 FROM ags_sessions_revokedaccesstoken r"
        " WHERE r.tenant_id = d.tenant_id AND r.jti = g.jti)",
        InvalidReason.REVOKED,
    ),
)
"""The fault of one access token of that sign-on, known by the `jti` of the given row `g`."""

SESSION_TOKEN_JOINS = """tenants_tenant t
  JOIN tenants_service s ON s.id = st.service_id
  LEFT JOIN tenants_key k ON k.id = st.key_id
  LEFT JOIN ags_sessions_account a ON a.tenant_id = st.tenant_id AND a.account_id = st.account_id"""  # noqa: S105 - tables
"""What the fault of a session token is found in, beside `st`, where `t.id = st.tenant_id`."""

SIGN_ON_JOINS = """tenants_tenant t
  JOIN tenants_service s ON s.id = d.service_id
  JOIN ags_sessions_account a ON a.id = d.account_id
  LEFT JOIN tenants_key k ON k.id = d.key_id"""
"""What the fault of a sign-on is found in, beside `d`, where `t.id = d.tenant_id`."""

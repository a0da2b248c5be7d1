"""The single definition of token validity, shared by every statement that checks a token."""

from ags.sessions.exceptions import InvalidReason
from tenants.models import IN_FORCE

KEY_STATES = ", ".join(f"'{state}'" for state in IN_FORCE)
"""The states in which a key can verify proofs, as a SQL list."""

_TENANT_AND_SERVICE = (
    ("NOT t.enabled", InvalidReason.TENANT_NOT_AVAILABLE),
    ("NOT s.enabled", InvalidReason.SERVICE_NOT_AVAILABLE),
)
_ACCOUNT = (
    ("a.status = 'cancelled'", InvalidReason.ACCOUNT_CANCELLED),
    ("a.status = 'suspended'", InvalidReason.ACCOUNT_SUSPENDED),
)


def _missing_key(alias: str) -> tuple[str, InvalidReason]:
    # AGS never deletes keys, but an operator may do so in SQL. The foreign keys have no constraints.
    return f"{alias}.key_id IS NOT NULL AND k.id IS NULL", InvalidReason.KEY_NOT_IN_FORCE


def _issued_before_revocation(proven_at: str) -> tuple[str, InvalidReason]:
    conditions = (f"{proven_at} <= {level}.revoked_before" for level in ("t", "s", "k", "a"))
    return " OR ".join(conditions), InvalidReason.REVOKED


def _case_expression(*rules: tuple[str, InvalidReason]) -> str:
    return "CASE " + " ".join(f"WHEN {condition} THEN '{reason}'" for condition, reason in rules) + " END"


SESSION_TOKEN_INVALID_REASON = _case_expression(
    *_TENANT_AND_SERVICE,
    _missing_key("st"),
    (
        f"k.state NOT IN ({KEY_STATES})"
        " OR k.not_before > CURRENT_TIMESTAMP OR k.not_after <= CURRENT_TIMESTAMP",
        InvalidReason.KEY_NOT_IN_FORCE,
    ),
    *_ACCOUNT,
    _issued_before_revocation("st.created_at"),
)
"""SQL expression: why session token `st` is invalid, or NULL if it is valid."""

_SIGN_ON_RULES = (
    *_TENANT_AND_SERVICE,
    _missing_key("d"),
    *_ACCOUNT,
    ("d.status = 'deleted'", InvalidReason.DEVICE_DELETED),
    ("d.status = 'disabled'", InvalidReason.DEVICE_DISABLED),
    ("d.ended_at IS NOT NULL OR d.fixed_expires_at <= CURRENT_TIMESTAMP", InvalidReason.SIGN_ON_ENDED),
    _issued_before_revocation("d.proven_at"),
)

SIGN_ON_INVALID_REASON = _case_expression(*_SIGN_ON_RULES)
"""SQL expression: why the sign-on of device `d`, and each of its tokens, is invalid, or NULL if it is valid.

The state of the key is not checked: a sign-on stays valid when its key is rotated out.
"""


ACCESS_TOKEN_INVALID_REASON = _case_expression(
    *_SIGN_ON_RULES,
    (
        "EXISTS (SELECT 1 FROM ags_sessions_revokedaccesstoken r"
        " WHERE r.tenant_id = d.tenant_id AND r.jti = g.jti)",
        InvalidReason.REVOKED,
    ),
)
"""SQL expression: as `SIGN_ON_INVALID_REASON`, for the access token with the `jti` of row `g`."""

SESSION_TOKEN_JOINS = """tenants_tenant t
  JOIN tenants_service s ON s.id = st.service_id
  LEFT JOIN tenants_key k ON k.id = st.key_id
  LEFT JOIN ags_sessions_account a ON a.tenant_id = st.tenant_id AND a.account_id = st.account_id"""  # noqa: S105 - tables
"""The joins of `SESSION_TOKEN_INVALID_REASON` beside `st`. The statement adds `t.id = st.tenant_id`."""

SIGN_ON_JOINS = """tenants_tenant t
  JOIN tenants_service s ON s.id = d.service_id
  JOIN ags_sessions_account a ON a.id = d.account_id
  LEFT JOIN tenants_key k ON k.id = d.key_id"""
"""The joins of `SIGN_ON_INVALID_REASON` beside `d`. The statement adds `t.id = d.tenant_id`."""

"""The limit on the session tokens and sign-ons of an account."""

import math

from ags.limits import SIGN_ONS
from ags.sessions.exceptions import RejectReason, TokenRejected
from tenants.tenant_snapshot import TenantSnapshot


async def count_sign_on(tenant: TenantSnapshot, account_id: str) -> None:
    """Count what is about to be granted. Raises `TokenRejected` if the account has too much already.

    The caller has verified a proof of the account: nobody else can use up what it may have.
    """
    maximum = tenant.limits.max_sign_ons_per_account
    if maximum and (remaining := await SIGN_ONS.hit(maximum, tenant.id, account_id)):
        SIGN_ONS.refusals.increment()
        raise TokenRejected(RejectReason.TOO_MANY_SIGN_ONS, math.ceil(remaining))

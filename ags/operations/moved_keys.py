"""Moves public keys from a service to its tenant, together with what they have proven."""

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from ags.sessions.models import SessionToken
from tenants.models import Key, Service
from tenants.services.moved_keys import Move, move_public_keys


@transaction.atomic
def move_with_session_tokens(tenant_id: str, service_name: str) -> Move | None:
    """Move the keys, and assign them the live session tokens that they have proven.

    Otherwise a token with a `jti` could be sent once more: with a key, it is unique for each key. See
    `move_public_keys`.
    """
    move = move_public_keys(tenant_id, service_name)
    if move is not None:
        for key in [*move.added, *move.existing]:
            _assign(move.service, key)
    return move


def _assign(service: Service, key: Key) -> None:
    tokens = SessionToken.objects.for_tenant(service.tenant_id)
    # Another service with the same key may have accepted the same `jti` already.
    is_known = Exists(tokens.filter(key=key, jti=OuterRef("jti")))
    live = tokens.filter(service=service, key=None, kid=key.kid, dead_after__gt=Now())
    live.exclude(is_known).update(key=key)

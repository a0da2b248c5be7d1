"""Registers the operator's signed JWT as a provider."""

from providers.apps import ProviderConfig


class PartnerJWTConfig(ProviderConfig):
    """A JWT that the operator has signed with a private key."""

    default = True
    contract = 1
    name = "partner_jwt"
    strategy = "partner_jwt.strategy.PartnerJWT"

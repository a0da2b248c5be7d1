"""The app configuration of the provider `signed_jwt`."""

from providers.apps import ProviderConfig


class SignedJWTConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.signed_jwt"
    strategy = "providers.signed_jwt.strategy.SignedJWT"

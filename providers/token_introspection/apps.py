"""The app configuration of the provider `token_introspection`."""

from providers.apps import ProviderConfig


class TokenIntrospectionConfig(ProviderConfig):
    """An access token, verified by the identity provider that issued it."""

    default = True
    contract = 2
    name = "providers.token_introspection"
    strategy = "providers.token_introspection.strategy.TokenIntrospection"

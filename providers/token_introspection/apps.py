"""The app configuration of the provider `token_introspection`."""

from providers.apps import ProviderConfig


class TokenIntrospectionConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.token_introspection"
    strategy = "providers.token_introspection.strategy.TokenIntrospection"

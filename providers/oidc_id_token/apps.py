"""The app configuration of the provider `oidc_id_token`."""

from providers.apps import ProviderConfig


class OIDCIDTokenConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.oidc_id_token"
    strategy = "providers.oidc_id_token.strategy.OIDCIDToken"

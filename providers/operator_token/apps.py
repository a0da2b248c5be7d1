"""The app configuration of the provider `operator_token`."""

from providers.apps import ProviderConfig


class OperatorTokenConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.operator_token"
    strategy = "providers.operator_token.strategy.OperatorToken"

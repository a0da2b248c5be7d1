"""The app configuration of the provider `operator_login`."""

from providers.apps import ProviderConfig


class OperatorLoginConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.operator_login"
    strategy = "providers.operator_login.strategy.OperatorLogin"

"""The app configuration of the provider `radius`."""

from providers.apps import ProviderConfig


class RADIUSConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.radius"
    strategy = "providers.radius.strategy.RADIUS"
    requires = {"pyrad": "pip install --require-hashes -r requirements/radius.txt"}

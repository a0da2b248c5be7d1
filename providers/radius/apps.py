"""Registers the RADIUS server as a provider."""

from providers.apps import ProviderConfig


class RADIUSConfig(ProviderConfig):
    """Username and password, or the ID of a line, as a RADIUS server knows them."""

    default = True
    contract = 2
    name = "providers.radius"
    strategy = "providers.radius.strategy.RADIUS"
    requires = {"pyrad": "pip install --require-hashes -r requirements/radius.txt"}

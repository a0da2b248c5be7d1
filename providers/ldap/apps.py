"""The app configuration of the provider `ldap`."""

from providers.apps import ProviderConfig


class LDAPConfig(ProviderConfig):
    default = True
    contract = 2
    name = "providers.ldap"
    strategy = "providers.ldap.strategy.LDAP"
    requires = {"ldap": "pip install --require-hashes -r requirements/ldap.txt"}

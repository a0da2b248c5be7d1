"""Registers `voucher` as a provider."""

from providers.apps import ProviderConfig


class VoucherConfig(ProviderConfig):
    """Voucher."""

    default = True
    contract = 1
    name = "voucher"
    strategy = "voucher.strategy.Voucher"

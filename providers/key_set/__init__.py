"""Public keys of an operator, as a ring: from the key set at an address, or from what staff have entered."""

from providers.key_set.entered import PublicKeysField, entered
from providers.key_set.key_set import KeySet, KeySetReader
from providers.key_set.proof import prove_by
from providers.key_set.settings import AlgorithmsField
from providers.key_set.strength import Unusable

__all__ = ["AlgorithmsField", "KeySet", "KeySetReader", "PublicKeysField", "Unusable", "entered", "prove_by"]

"""How often the keys of a tenant were used."""

from django.db import models

from tenants.models.key import Key
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped


class KeyUse(TenantScoped):
    """The requests with a token that the key has signed, in a period of ten minutes, of all processes.

    `refused` are those with a valid signature that were refused for any reason, such as the state of the key.
    Requests without a valid signature are not counted: anybody can send the ID of a key. `accepted_at` and
    `refused_at` are the times of the latest. `min_age` and `max_age` are of tokens with `iat`: seconds from
    then to the time of AGS, negative if `iat` is later.

    Written by `ags.operations.key_use`. No request depends on it.
    """

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    key = models.ForeignKey(Key, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    began_at = models.DateTimeField()
    accepted = models.PositiveIntegerField()
    refused = models.PositiveIntegerField()
    accepted_at = models.DateTimeField(null=True)
    refused_at = models.DateTimeField(null=True)
    min_age = models.FloatField(null=True)
    max_age = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key", "began_at"], name="one_use_of_a_period"),
        ]
        indexes = [
            models.Index(fields=["began_at"], name="uses_of_keys_by_time"),
            models.Index(fields=["tenant", "began_at"], name="uses_of_keys_of_a_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.began_at}"

"""A lock that expires, and what the purge has done under it."""

from django.db import models
from django.db.models.functions import Now


class Lease(models.Model):
    """A lock that expires. `ags.operations.lease` is the only writer."""

    name = models.CharField(max_length=32, primary_key=True)
    token = models.UUIDField(null=True)
    holder = models.CharField(max_length=128)
    acquired_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_default=Now())
    # Of the work that is done under the lease
    succeeded_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class PurgeCount(models.Model):
    """The total and the latest count of a kind of rows. `ags.operations.purge_counts` is the only writer."""

    kind = models.CharField(max_length=64, primary_key=True)
    purged = models.PositiveBigIntegerField(db_default=0)
    # Of the latest count; NULL until there is one.
    dead = models.PositiveBigIntegerField(null=True)
    alive = models.PositiveBigIntegerField(null=True)
    counted_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.kind

"""A lock that expires."""

from django.db import models
from django.db.models.functions import Now


class Lease(models.Model):
    """A lock that expires. `ags.operations.lease` is the only writer."""

    name = models.CharField(max_length=32, primary_key=True)
    token = models.UUIDField(null=True)
    holder = models.CharField(max_length=128)
    acquired_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name

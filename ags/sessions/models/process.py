"""The server processes that use the database."""

from django.db import models
from django.db.models.functions import Now


class Process(models.Model):
    """A worker process of a server, as it has last reported.

    `configuration_version`: the version of the whole configuration that it serves. `ags.operations.processes`
    is the only writer.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    host = models.CharField(max_length=128)
    process_id = models.PositiveBigIntegerField("process ID")
    release = models.CharField("version of AGS", max_length=32)
    configuration_version = models.PositiveBigIntegerField()
    reported_at = models.DateTimeField("last report", db_default=Now())

    class Meta:
        default_permissions = ()  # those who may view tenants may view processes
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"process {self.process_id} on {self.host}"

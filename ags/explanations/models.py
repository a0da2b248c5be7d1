"""The model of the page that explains requests."""

from ags.sessions.models import Event


class ExplainedRequest(Event):
    """A request that the admin explains. It has no table: the admin lists models only."""

    class Meta:
        proxy = True
        # The page needs the permission to view events.
        default_permissions = ()
        verbose_name = "explained request"
        verbose_name_plural = "explain a request"

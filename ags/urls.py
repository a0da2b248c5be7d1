"""The whole public surface."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from ags.api.views.discovery import ServiceDiscovery
from ags.api.views.docs import OpenAPI, Reference, ToPage
from ags.api.views.health import Alive, Ready
from ags.api.views.jwks import KeySet
from ags.api.views.metrics import Metrics
from ags.api.views.oauth import Introspect, Revoke
from ags.api.views.refresh import Refresh
from ags.api.views.session_token import GetSessionToken
from ags.api.views.sign_on import SignOn
from ags.api.views.sign_on_with_session_token import SignOnWithSessionToken
from ags.api.views.sign_out import SignOut
from ags.api.views.subsequent_sign_on import SubsequentSignOn

API: list[URLPattern | URLResolver] = [
    path("ags/servicediscovery", ServiceDiscovery.as_view()),
    path("ags/getSessionToken", GetSessionToken.as_view()),
    path("ags/signOnWithSessionToken", SignOnWithSessionToken.as_view()),
    path("ags/signOn", SignOn.as_view()),
    path("ags/subsequentSignOn", SubsequentSignOn.as_view()),
    path("ags/signOut", SignOut.as_view()),
    path("ias/v3/token/actions/refresh", Refresh.as_view()),
    path("oauth/introspect", Introspect.as_view()),
    path("oauth/revoke", Revoke.as_view()),
    path(".well-known/jwks.json", KeySet.as_view()),
]
EVERYWHERE: list[URLPattern | URLResolver] = [
    path("healthz", Alive.as_view()),
    path("readyz", Ready.as_view()),
    path("metrics", Metrics.as_view()),
    path("openapi.json", OpenAPI.as_view()),
    path("docs/", Reference.as_view(), name="docs"),
    path("docs", ToPage.as_view(page="docs")),
]
ADMIN: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("admin", ToPage.as_view(page="admin:index")),
]
urlpatterns = {
    "on": API + EVERYWHERE + ADMIN,
    "off": API + EVERYWHERE,
    "only": EVERYWHERE + ADMIN,
}[settings.AGS_ADMIN]

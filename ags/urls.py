"""All URLs."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

from ags.api.staff_login import log_in
from ags.api.views.discovery import ServiceDiscovery
from ags.api.views.docs import APIReference, OpenAPI, RedirectToPage
from ags.api.views.explanation import open_explanation
from ags.api.views.health import Liveness, Readiness
from ags.api.views.jwks import JWKS
from ags.api.views.metrics import Metrics
from ags.api.views.oauth import Introspect, Revoke
from ags.api.views.refresh import Refresh
from ags.api.views.session_token import GetSessionToken
from ags.api.views.sign_on import SignOn, SignOnWithSessionToken, SubsequentSignOn
from ags.api.views.sign_out import SignOut

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
    path(".well-known/jwks.json", JWKS.as_view()),
]
COMMON: list[URLPattern | URLResolver] = [
    path("healthz", Liveness.as_view()),
    path("readyz", Readiness.as_view()),
    path("metrics", Metrics.as_view()),
    path("openapi.json", OpenAPI.as_view()),
    path("docs/", APIReference.as_view(), name="docs"),
    path("docs", RedirectToPage.as_view(page="docs")),
    path("explanations/<token>", open_explanation, name="explanation"),
]
ADMIN: list[URLPattern | URLResolver] = [
    path("admin/login/", log_in),
    path("admin/", admin.site.urls),
    path("admin", RedirectToPage.as_view(page="admin:index")),
]
urlpatterns = {
    "on": API + COMMON + ADMIN,
    "off": API + COMMON,
    "only": COMMON + ADMIN,
}[settings.AGS_ADMIN]

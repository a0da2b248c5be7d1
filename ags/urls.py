"""The whole public surface."""

from django.conf import settings
from django.contrib import admin
from django.urls import path

from ags.api.discovery import ServiceDiscovery
from ags.api.documents import OpenAPI, Reference, ToPage
from ags.api.health import Alive, Ready
from ags.api.session_token import GetSessionToken

urlpatterns = [
    path("ags/servicediscovery", ServiceDiscovery.as_view()),
    path("ags/getSessionToken", GetSessionToken.as_view()),
    path("healthz", Alive.as_view()),
    path("readyz", Ready.as_view()),
    path("openapi.json", OpenAPI.as_view()),
    path("docs/", Reference.as_view(), name="docs"),
    path("docs", ToPage.as_view(page="docs")),
]
if settings.AGS_ADMIN:
    urlpatterns += [
        path("admin/", admin.site.urls),
        path("admin", ToPage.as_view(page="admin:index")),
    ]

"""Settings of Django for django-oauth-toolkit in production, with what a token endpoint needs."""

import os

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "bench.systems.oauth_toolkit.urls"
# The tables of tokens refer to users and content types. The token endpoint needs no sessions and no messages,
# and is exempt from CSRF protection.
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",  # sets Content-Length
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DATABASE_HOST"],
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["DATABASE_USER"],
        "CONN_MAX_AGE": None,
    }
}
OAUTH2_PROVIDER = {
    "ACCESS_TOKEN_EXPIRE_SECONDS": 300,
    # Stores a hash of the token, as AGS does. This is the default of its next version.
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
}

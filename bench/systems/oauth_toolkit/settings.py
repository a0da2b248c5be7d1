"""Django's settings for django-oauth-toolkit in production: what a token endpoint needs, and no more."""

import os

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "bench.systems.oauth_toolkit.urls"
# The tokens' tables refer to users and content types. The token endpoint itself needs neither sessions nor
# messages, and is exempt from CSRF.
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",  # says how long an answer is
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
    # The database keeps a hash of a token and not the token, as AGS has it; its next version will by default.
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
}

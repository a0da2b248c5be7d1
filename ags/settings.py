"""Django's settings. Deployments configure AGS with environment variables only."""

import sys
from pathlib import Path

from django.urls import reverse_lazy

from ags import env, tracing

BASE_DIR = Path(__file__).resolve().parent.parent

# Environment variables (documented in .env.example)
DEBUG = env.env_bool("DEBUG", default=False)
SECRET_KEY = env.env_secret_key()
AGS_ENCRYPTION_KEYS = env.env_encryption_keys()
AGS_DATABASE_POOLER = env.env_choice("AGS_DATABASE_POOLER", "none", ("none", "transaction"))
DATABASES = {"default": env.env_database(pooled=AGS_DATABASE_POOLER == "transaction")}
ALLOWED_HOSTS = env.env_hosts("AGS_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
AGS_REDIS_URL = env.env_redis()
AGS_PROVIDERS = env.env_apps("AGS_PROVIDERS", "providers.operator_token")
AGS_PRIVATE_UPSTREAMS = env.env_networks("AGS_PRIVATE_UPSTREAMS")
AGS_DEFAULT_TENANT = env.env_match(
    "AGS_DEFAULT_TENANT", "", r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?", "a tenant ID"
)
AGS_ADMIN = env.env_choice("AGS_ADMIN", "on", ("on", "off", "only"))
AGS_BIND = env.env_bind("AGS_BIND", "127.0.0.1:8000")
AGS_OPERATIONS_BIND = env.env_second_bind("AGS_OPERATIONS_BIND", AGS_BIND)
AGS_METRICS_TENANTS = env.env_int("AGS_METRICS_TENANTS", 100, 0, 10_000)
AGS_DRAIN_SECONDS = env.env_int("AGS_DRAIN_SECONDS", 8, 0, 300)
AGS_CLOCK_TOLERANCE = env.env_int("AGS_CLOCK_TOLERANCE", 10, 0, 3600)
AGS_WORKERS = env.env_int("AGS_WORKERS", len(env.available_cpus()), 1, 512)
# A system check warns if it is unset; 0 must be explicit.
AGS_TRUSTED_PROXIES_SET = env.env_str("AGS_TRUSTED_PROXIES", "") != ""
AGS_TRUSTED_PROXIES = env.env_int("AGS_TRUSTED_PROXIES", 0, 0, 10)
AGS_PURGE = env.env_choice("AGS_PURGE", "on", ("on", "off"))
AGS_TRACES = tracing.is_requested()
AGS_LOG_LEVEL = env.env_choice("AGS_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "simple_history",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "providers",
    *AGS_PROVIDERS,
    "tenants",
    "ags.sessions",
    "ags.explanations",
    "ags.operations",
]

# GatewayMiddleware handles API requests; the others are only for staff pages.
MIDDLEWARE = [
    "ags.api.middleware.GatewayMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "axes.middleware.AxesMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "ags.api.staff_login.LimitBackend",
    "django.contrib.auth.backends.ModelBackend",
]

ROOT_URLCONF = "ags.urls"
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "ags.formats"
LANGUAGE_CODE = "en"
USE_I18N = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "ags" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STATIC_URL = "/static/"
# Serves the files of the installed packages, found once at start-up, without collectstatic.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

# Staff pages
LOGIN_URL = "admin:login"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
CSRF_FAILURE_VIEW = "ags.api.errors.csrf_failure"
SESSION_ENGINE = "ags.operations.staff_sessions"
SESSION_COOKIE_AGE = 8 * 3600  # from the login
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
SECURE_SSL_REDIRECT = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else 365 * 24 * 3600
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if AGS_TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Only the owner of the domain can decide about HSTS for subdomains and preloading.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        # The admin theme evaluates expressions and sets styles inline.
        "script-src": ["'self'", "'unsafe-inline'", "'unsafe-eval'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
PASSWORD_HASHERS = ["ags.limits.password_hasher.QueuedPasswordHasher"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "ags.api.client_ip.lockout_address"
AXES_WHITELIST_CALLABLE = "ags.api.staff_login.is_known_browser"
AXES_LOCKOUT_CALLABLE = "ags.api.staff_login.respond_to_lockout"
AXES_VERBOSE = False
AXES_CLIENT_STR_CALLABLE = "ags.api.client_ip.format_client"
AXES_ENABLE_ADMIN = False  # its pages run COUNT(*) on whole tables
FAVICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='5' cy='8' r='3' fill='none' stroke='%239810fa' stroke-width='2'/%3E"
    "%3Cpath d='M8 8h7v3M12 8v2' fill='none' stroke='%239810fa' stroke-width='2'/%3E%3C/svg%3E"
)
UNFOLD = {
    "SITE_TITLE": "AGS",
    "SITE_HEADER": "Authentication Gateway",
    "SITE_SYMBOL": "key",
    "SHOW_VIEW_ON_SITE": False,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": FAVICON}],
    "SIDEBAR": {"show_search": False},
    "SITE_URL": reverse_lazy("docs"),
}

# The API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "ags.api.errors.exception_handler",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Authentication Gateway Service",
    "VERSION": "1",
    "DESCRIPTION": "Signs on devices of the subscribers of pay-TV and streaming operators.",
    "LICENSE": {"name": "Apache-2.0"},
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": False, "validatorUrl": None},
    "COMPONENT_SPLIT_REQUEST": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "ags.api.openapi_components.add_response_headers",
    ],
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "accessToken": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The access token of a client app.",
            },
            "refreshToken": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The refresh token of a client app.",
            },
            "resourceServer": {
                "type": "http",
                "scheme": "basic",
                "description": "Client ID and secret of a resource server. Both may be in the form instead.",
            },
        }
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "ags.server.logs.JSONFormatter"},
        "readable": {"()": "ags.server.logs.TextFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            # Text for a terminal, JSON for a log collector.
            "formatter": "readable" if sys.stderr.isatty() else "json",
        }
    },
    "root": {"handlers": ["stderr"], "level": AGS_LOG_LEVEL},
    "loggers": {
        # Replaces Django's handlers, which would log each record twice.
        "django": {"handlers": [], "level": "WARNING", "propagate": True},
        # AGS logs every response itself. These loggers would log input of the caller: path, host, origin.
        **{
            name: {"handlers": [], "level": "CRITICAL", "propagate": True}
            for name in ("django.request", "django.security", "django.server")
        },
        "axes": {"level": "WARNING"},
        # The worker logs rejected requests itself, without their content.
        "gunicorn.error": {"handlers": [], "level": "ERROR", "propagate": True},
    },
}

"""Django's settings, derived from :mod:`controlplane.env`; nothing here reads the process environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_database_url
import drf_spectacular_sidecar
from csp.constants import NONCE, NONE, SELF
from django.utils.translation import gettext_lazy as _

from controlplane.env import CHECKOUT, environment
from controlplane.settings.mail import TIMEOUT_SECONDS, mail_server

ENV = environment()

SECRET_KEY = ENV.secret_key
DEBUG = ENV.debug
# The control protocol arrives with any Host ("unused", an address, a proxy's name): nothing routes on it,
# and links are always built from TRENZA_URL.
ALLOWED_HOSTS = ["*"]
BASE_URL = ENV.url
BASE_DOMAIN = ENV.base_domain
WEBHOOK_PRIVATE = ENV.webhook_private

INSTALLED_APPS = [
    "accounts",
    "nodes",
    "controlplane",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "django_cotton",
    "django_filters",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.mfa",
    "allauth.usersessions",
]

MIDDLEWARE = [
    "controlplane.middleware.TrustedProxyMiddleware",
    "controlplane.middleware.MeasuredApiMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.middleware.CompressedPagesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "accounts.middleware.CurrentTailnetMiddleware",
]

ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [CHECKOUT / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "controlplane.context_processors.panel",
            ],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        "django_cotton.cotton_loader.Loader",
                        "django.template.loaders.filesystem.Loader",
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
            "builtins": ["django_cotton.templatetags.cotton"],
        },
    }
]

# --- data ------------------------------------------------------------------------------------------------

SQLITE_BUSY_SECONDS = 5
CONNECTIONS_LAST = 60  # seconds
SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": str(ENV.data / "db.sqlite3"),
    "CONN_MAX_AGE": CONNECTIONS_LAST,
    "OPTIONS": {
        "timeout": SQLITE_BUSY_SECONDS,
        # A write transaction takes its lock at once, so two writers wait instead of failing half way.
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    },
}
DATABASES: dict[str, Any] = {
    "default": dict(dj_database_url.parse(ENV.database_url, conn_max_age=CONNECTIONS_LAST))
    if ENV.database_url
    else SQLITE
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_CAPACITY = 1000
CHANNEL_LAYERS: dict[str, Any] = {
    "default": (
        {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [ENV.redis_url], "capacity": CHANNEL_CAPACITY},
        }
        if ENV.redis_url
        else {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": CHANNEL_CAPACITY}}
    )
}
CACHES: dict[str, Any] = {
    "default": (
        {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": ENV.redis_url}
        if ENV.redis_url
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    )
}

CELERY_BROKER_URL = ENV.redis_url or "memory://"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 300
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 60}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

# --- people ----------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "/sign-in"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in"

ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
SOCIALACCOUNT_ADAPTER = "accounts.adapters.SocialAccountAdapter"
_MAIL = mail_server(ENV.email_url, ENV.host)
MAIL_IS_SET_UP = bool(_MAIL.host)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = _MAIL.sender
EMAIL_HOST, EMAIL_PORT = _MAIL.host, _MAIL.security.port
EMAIL_USE_SSL, EMAIL_USE_TLS = _MAIL.security.tls, _MAIL.security.starttls
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.user, _MAIL.password
EMAIL_TIMEOUT = TIMEOUT_SECONDS

ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS: list[str] = []
SOCIALACCOUNT_ONLY = False
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False
SOCIALACCOUNT_STORE_TOKENS = False
# accounts.provider has the two; allauth looks for them there by the app's name.
SOCIALACCOUNT_PROVIDERS: dict[str, Any] = {}
if ENV.google_client_id and ENV.google_client_secret:
    SOCIALACCOUNT_PROVIDERS["google"] = {
        "APPS": [
            {
                "client_id": ENV.google_client_id,
                "secret": ENV.google_client_secret,
                "settings": {"issuer": ENV.google_issuer, "domains": ENV.google_domains},
            }
        ],
    }
if ENV.oidc_issuer and ENV.oidc_client_id and ENV.oidc_client_secret:
    SOCIALACCOUNT_PROVIDERS["oidc"] = {
        "APPS": [
            {
                "name": ENV.oidc_name,
                "client_id": ENV.oidc_client_id,
                "secret": ENV.oidc_client_secret,
                "settings": {"issuer": ENV.oidc_issuer, "groups_claim": ENV.oidc_groups_claim},
            }
        ],
    }
ACCOUNT_REAUTHENTICATION_REQUIRED = True
MFA_ADAPTER = "accounts.adapters.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_WEBAUTHN_USER_VERIFICATION = "required"
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_FORMS = {
    "login_webauthn": "accounts.passkey_forms.LoginForm",
    "authenticate_webauthn": "accounts.passkey_forms.AuthenticateForm",
    "reauthenticate_webauthn": "accounts.passkey_forms.ReauthenticateForm",
    "add_webauthn": "accounts.passkey_forms.AddForm",
}

# --- the web ---------------------------------------------------------------------------------------------

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("es", _("Spanish"))]
LOCALE_PATHS = [CHECKOUT / "locale"]

STATIC_URL = "/static/"
SIDECAR = Path(drf_spectacular_sidecar.__file__).parent / "static" / "drf_spectacular_sidecar"
STATICFILES_DIRS = [CHECKOUT / "static", ("swagger", SIDECAR / "swagger-ui-dist")]
STATIC_ROOT = ENV.data / "static"
WHITENOISE_AUTOREFRESH = DEBUG
STORAGES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# What machines fetch by plain HTTP, some from this very host, is never redirected.
SECURE_SSL_REDIRECT = ENV.secure
SECURE_REDIRECT_EXEMPT = [
    rf"^{path}$" for path in ("key", "ts2021", "generate_204", "verify", "healthz", "readyz", "metrics")
]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if ENV.secure else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = ENV.secure
SECURE_HSTS_PRELOAD = ENV.secure
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.trusted_proxies else None
SESSION_COOKIE_SECURE = ENV.secure
CSRF_COOKIE_SECURE = ENV.secure
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = "__Host-trenza_session" if ENV.secure else "trenza_session"
CSRF_COOKIE_NAME = "__Host-trenza_csrf" if ENV.secure else "trenza_csrf"
CSRF_TRUSTED_ORIGINS = [ENV.url]
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:", "https://*.googleusercontent.com"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],  # pages whose forms lead to a provider name it: accounts.signing_in
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "controlplane.api.openapi.DescribedSchema",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Trenza",
    "DESCRIPTION": (
        "What the panel does, for programs: Tailscale's API v2 as far as it needs none of Tailscale's own "
        "services, and under /api/trenza/v1 what only Trenza has.\n\n"
        "A token is sent with every request, as the user's name of HTTP Basic or after the word Bearer, and "
        "may make 600 requests a minute. It is limited to its scopes and, where it is a person's, to their "
        "role. Every refusal is an object with a `message` for people. Objects have the members described "
        "here and no others; a request with another member is refused."
    ),
    "VERSION": "2",
    "OAS_VERSION": "3.1.0",
    "SERVERS": [{"url": ENV.url}],
    "SCHEMA_PATH_PREFIX": "/api/",
    "CAMELIZE_NAMES": True,  # the parameters of paths
    "COMPONENT_SPLIT_PATCH": False,  # what a PATCH may leave out, its own serializer says
    "ENFORCE_NON_BLANK_FIELDS": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": ["controlplane.api.openapi.finish"],
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {"uvicorn.access": {"level": "WARNING"}, "django.request": {"level": "ERROR"}},
}

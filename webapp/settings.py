"""Settings, from the environment. The defaults are safe for a server behind HTTPS.

WEBAPP_SECRET_KEY      signs the form's token; must be set
WEBAPP_HOSTS           the names of the server besides localhost, with commas
WEBAPP_HTTPS           0 for plain HTTP, on one's own machine only (default: 1)
WEBAPP_BEHIND_PROXY    1 if a proxy sets X-Forwarded-Proto (default: 0)
WEBAPP_MAX_MB          the largest upload, a photo or a form of several, in megabytes (default: 15)
WEBAPP_MAX_MEGAPIXELS  the largest photo in millions of pixels (default: 60)
WEBAPP_QUEUE           photos that may wait or be in work at once, in one process (default: 32)
WEBAPP_BATCH           photos that are captioned together (default: 8)
WEBAPP_STATIC_ROOT     where collectstatic puts the static files (default: webapp/staticfiles)
WEBAPP_DEBUG           1 for debug pages, never on a server (default: 0)

Gunicorn alone reads these:

HOST                   the address to listen on (default: 127.0.0.1)
PORT                   its port (default: 8000)
WEB_CONCURRENCY        the number of processes (default: 1)
"""

import logging
import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

REPOSITORY = Path(__file__).resolve().parents[1]


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "1" if default else "0")
    if value not in ("0", "1"):
        raise ImproperlyConfigured(f"{name} must be 0 or 1, not {value!r}.")
    return value == "1"


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ImproperlyConfigured(f"{name} must be a positive number, not {value!r}.")
    return int(value)


DEBUG = _flag("WEBAPP_DEBUG", False)
SECRET_KEY = os.environ.get("WEBAPP_SECRET_KEY", "")
if not SECRET_KEY:
    raise ImproperlyConfigured("WEBAPP_SECRET_KEY is not set: give it 50 random characters or more.")
_names = [name.strip() for name in os.environ.get("WEBAPP_HOSTS", "").split(",")]
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *filter(None, _names)]  # health checks come from localhost

# No users, no sessions and no database: the site stores nothing.
INSTALLED_APPS = ["django.contrib.staticfiles", "ninja", "webapp.captioning"]
DATABASES = {}
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "webapp.captioning.middleware.SecurityHeaders",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "webapp.captioning.middleware.JsonErrors",
    "webapp.captioning.middleware.UploadLimit",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "webapp.urls"
WSGI_APPLICATION = "webapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True

# Static files, the example photos among them
STATIC_URL = "static/"
STATIC_ROOT = Path(os.environ.get("WEBAPP_STATIC_ROOT", REPOSITORY / "webapp" / "staticfiles"))
EXAMPLES = REPOSITORY / "examples"
STATICFILES_DIRS = [("examples", EXAMPLES)]
STORAGES = {"staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}}
if DEBUG:
    STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}

# Uploads stay in memory. The UploadLimit middleware refuses larger ones before Django reads them.
MAX_MEGABYTES = _number("WEBAPP_MAX_MB", 15)
MAX_UPLOAD_BYTES = MAX_MEGABYTES * 1_000_000
MAX_PIXELS = _number("WEBAPP_MAX_MEGAPIXELS", 60) * 1_000_000
MAX_PHOTOS = 8  # in one form
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
FILE_UPLOAD_MAX_MEMORY_SIZE = DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_UPLOAD_BYTES + 100_000  # and the form around it
DATA_UPLOAD_MAX_NUMBER_FILES = 100  # the form itself says what is too many

# The captioner
QUEUE_SIZE = _number("WEBAPP_QUEUE", 32)
BATCH_SIZE = _number("WEBAPP_BATCH", 8)
BATCH_WAIT_SECONDS = 0.004

# Security. SecurityHeaders adds the Content-Security-Policy.
HTTPS = _flag("WEBAPP_HTTPS", True)
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # asked from inside the container, over HTTP
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Strict"
X_FRAME_OPTIONS = "DENY"
if _flag("WEBAPP_BEHIND_PROXY", False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")


def _without_traceback(record: logging.LogRecord) -> bool:
    """What strangers send, such as another host's name, is a line of the log: scanners send it all day."""
    if record.name.startswith("django.security."):
        record.exc_info = None
    return True


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"short": {"()": "django.utils.log.CallbackFilter", "callback": _without_traceback}},
    "handlers": {"console": {"class": "logging.StreamHandler", "filters": ["short"]}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django.request": {"level": "ERROR"}},  # a line for each 429 would fill the disk in a flood
}

"""What the page and the API say when the server cannot take a photo."""

from django.conf import settings

RETRY_SECONDS = 1
BUSY = "Too many photos are waiting: try again in a moment."
TOO_LARGE = f"The upload has more than {settings.MAX_MEGABYTES} MB: send a smaller photo, or fewer at once."
NO_LENGTH = "The upload does not say its length, as one sent in chunks: send it with the header Content-Length."
NO_MODEL = "The server cannot load its model: /healthz says why."

"""Headers, limits and the form of errors, for every view."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from webapp.captioning.refusals import NO_LENGTH, TOO_LARGE

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
# Swagger UI sets styles from its script.
DOCS_POLICY = POLICY | {"style-src": "'self' 'unsafe-inline'"}
DRAINED_CHUNK = 64 * 1024

GetResponse = Callable[[HttpRequest], HttpResponse]


class SecurityHeaders:
    """Sets the Content-Security-Policy and the Permissions-Policy."""

    def __init__(self, get_response: GetResponse):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        policy = DOCS_POLICY if request.path == "/api/docs" else POLICY
        response.headers["Content-Security-Policy"] = "; ".join(f"{name} {value}" for name, value in policy.items())
        response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        return response


class JsonErrors:
    """Turns an error page below /api/ into JSON."""

    def __init__(self, get_response: GetResponse):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        if response.status_code < 400 or is_json or not request.path.startswith("/api/"):
            return response
        error = JsonResponse({"error": f"{response.reason_phrase}."}, status=response.status_code)
        if "Allow" in response.headers:
            error.headers["Allow"] = response.headers["Allow"]
        return error


class UploadLimit:
    """Refuses a request whose body is larger than the limit, before Django reads it, or of no known length.

    Django takes the latter for empty, and whoever sent a photo would be told that there is none.
    """

    def __init__(self, get_response: GetResponse):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length == "0" and "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            return self._refuse(request, 411, "No length", NO_LENGTH)
        if not length.isdecimal() or int(length) <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return self.get_response(request)
        if int(length) <= 10 * settings.MAX_UPLOAD_BYTES:
            # A browser shows the answer only after it has sent everything. What it sends is dropped.
            while request.read(DRAINED_CHUNK):
                pass
        return self._refuse(request, 413, "Too large", TOO_LARGE)

    def _refuse(self, request: HttpRequest, status: int, title: str, error: str) -> HttpResponse:
        if request.path.startswith("/api/"):
            return JsonResponse({"error": error}, status=status)
        return render(request, "error.html", {"title": title, "error": error}, status=status)

"""The page, and whether the site is well."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from caption_generator.common.errors import CaptionError
from webapp.batching import Busy
from webapp.captioning.forms import PhotoForm, example_names
from webapp.captioning.refusals import BUSY, NO_MODEL, RETRY_SECONDS
from webapp.captioning.service import NoModel, Result, result, service


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The page. After a POST it shows the captions; the page's script asks for these alone."""
    form = PhotoForm()
    results: list[Result] = []
    status = 200
    if request.method == "POST":
        form = PhotoForm(request.POST, request.FILES)
        if form.is_valid():
            for photo in form.chosen():
                try:
                    results.append(result(photo))
                except CaptionError as error:
                    results.append(Result(photo.name, error=str(error)))
                    status = max(status, 422)
                except Busy:
                    results.append(Result(photo.name, error=BUSY))
                    status = 429
                except NoModel:
                    form.add_error(None, NO_MODEL)
                    status = 503
                    break
        else:
            status = 400
    context = {
        "form": form,
        "results": results,
        "examples": [(name, name.removesuffix(".jpg").replace("_", " ")) for name in example_names()],
        "max_megabytes": settings.MAX_MEGABYTES,
        "max_photos": settings.MAX_PHOTOS,
    }
    fragment = request.headers.get("X-Fragment") == "1"
    template = "captioning/_results.html" if fragment else "captioning/index.html"
    response = render(request, template, context, status=status)
    if status == 429:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Whether the model is loaded."""
    try:
        service()
    except NoModel as error:
        return JsonResponse({"status": "error", "error": str(error)}, status=503)
    return JsonResponse({"status": "ok"})

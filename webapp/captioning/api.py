"""The API. django-ninja describes the answers by their types, and serves the documentation without a CDN."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError
from pydantic import Field

from caption_generator import __version__
from caption_generator.common.errors import CaptionError
from caption_generator.search import Caption
from webapp.batching import Busy
from webapp.captioning.refusals import BUSY, NO_MODEL, RETRY_SECONDS, TOO_LARGE
from webapp.captioning.service import NoModel, service
from webapp.photos import Photo
from webapp.wording import words_of

api = NinjaAPI(
    title="Image caption generator",
    version=__version__,
    description="A photo in, a sentence out. Photos are captioned in memory and not kept.",
    docs_url="/docs",
    urls_namespace="api",
)
PHOTO_SCHEMA = {"type": "string", "format": "binary"}
FORM_SCHEMA = {"type": "object", "properties": {"image": PHOTO_SCHEMA}, "required": ["image"]}


class WordOut(Schema):
    word: str
    probability: float = Field(description="given the photo and the words before it")


class CaptionOut(Schema):
    caption: str
    score: float = Field(description="how much to trust the caption, 0 to 1")
    words: list[WordOut]


class ResultOut(CaptionOut):
    alternatives: list[CaptionOut] = Field(description="other captions, the best first")


class ErrorOut(Schema):
    error: str = Field(description="one sentence: what is wrong, and what to do")


@api.post(
    "/caption",
    summary="Caption a photo",
    description="Send the photo as the field `image` of a form, or as the body itself, whatever its content type.",
    operation_id="caption",
    response={200: ResultOut, frozenset({400, 411, 413, 422, 429, 503}): ErrorOut},
    openapi_extra={
        "requestBody": {
            "content": {"multipart/form-data": {"schema": FORM_SCHEMA}, "image/*": {"schema": PHOTO_SCHEMA}},
            "required": True,
        }
    },
)
def caption(request: HttpRequest):
    """Caption the photo of the request."""
    # A parameter of type File would read every body that is called a form, and curl calls a photo so.
    if request.content_type == "multipart/form-data":
        image = request.FILES.get("image")
        if image is None:
            raise HttpError(400, "The form has no photo: send it as the field image.")
        photo = Photo(image.read(), image.name)
    else:
        photo = Photo(request.body)
    if not photo.data:
        raise HttpError(400, "The request has no photo: send it as the field image of a form, or as the body.")
    if len(photo.data) > settings.MAX_UPLOAD_BYTES:
        raise HttpError(413, TOO_LARGE)
    best, *others = service().caption(photo)
    return ResultOut(**_out(best).dict(), alternatives=[_out(other) for other in others])


def _out(found: Caption) -> CaptionOut:
    words = [WordOut(word=word, probability=round(probability, 4)) for word, probability in words_of(found)]
    return CaptionOut(caption=found.text, score=round(found.score, 4), words=words)


@api.exception_handler(CaptionError)
def _unreadable(request: HttpRequest, error: CaptionError) -> HttpResponse:
    return api.create_response(request, {"error": str(error)}, status=422)


@api.exception_handler(Busy)
def _busy(request: HttpRequest, error: Busy) -> HttpResponse:
    response = api.create_response(request, {"error": BUSY}, status=429)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


@api.exception_handler(NoModel)
def _no_model(request: HttpRequest, error: NoModel) -> HttpResponse:
    return api.create_response(request, {"error": NO_MODEL}, status=503)


@api.exception_handler(HttpError)
def _refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    return api.create_response(request, {"error": str(error)}, status=error.status_code)

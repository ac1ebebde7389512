"""The captioner of this process, and photos to captions."""

import base64
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from PIL import Image

from caption_generator.captioner import Captioner
from caption_generator.common.errors import CaptionError
from caption_generator.images import load_pixels, open_rgb
from caption_generator.search import Caption
from webapp.batching import Batcher
from webapp.heat_maps import heat_map
from webapp.photos import Photo
from webapp.wording import alt_text, words_of

PREVIEW_SIZE = (1200, 1200)
UNFAMILIAR = 0.5
UNSURE_PERCENT = 33
DECODED_AT_ONCE = 4  # a large photo takes 200 MB while it is decoded


class NoModel(Exception):
    """The model cannot be loaded. The message is one sentence, for those who run the server."""


@dataclass(frozen=True)
class Service:
    """A captioner and its batches."""

    captioner: Captioner
    batcher: Batcher

    def caption(self, photo: Photo) -> Sequence[Caption]:
        """Caption a photo.

        Raises:
            CaptionError: the photo cannot be read.
            Busy: too many photos wait already.
        """
        with self.batcher.place():
            photo.check(settings.MAX_PIXELS)
            with _decoding:
                pixels = load_pixels(photo.file(), self.captioner.engine.input_size)
            return self.batcher.caption(pixels)


_service: Service | None = None
_lock = threading.Lock()
_decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)


def load_captioner() -> Captioner:
    """The captioner that ships."""
    return Captioner.load()


def service() -> Service:
    """The service of this process. The first call loads the model.

    Raises:
        NoModel: the model cannot be loaded. The next call tries again.
    """
    global _service
    with _lock:
        if _service is None:
            try:
                captioner = load_captioner()
            except CaptionError as error:
                raise NoModel(str(error)) from error
            batcher = Batcher(
                captioner.caption_pixels, settings.BATCH_SIZE, settings.BATCH_WAIT_SECONDS, settings.QUEUE_SIZE
            )
            _service = Service(captioner, batcher)
        return _service


@dataclass(frozen=True)
class Word:
    """A word on the page.

    Attributes:
        text: the word.
        percent: its probability.
        heat: where the model looked, as a data URL; empty without attention.
    """

    text: str
    percent: int
    heat: str

    @property
    def unsure(self) -> bool:
        """Whether the word is little more than a guess."""
        return self.percent < UNSURE_PERCENT


@dataclass(frozen=True)
class Result:
    """A photo and its captions on the page, or why there are none.

    Attributes:
        name: the photo's name.
        error: one sentence; empty if all went well.
        preview: the photo, upright and small, as a data URL.
        width, height: of the preview.
        words: the words of the best caption.
        alt_text: the best caption as a sentence.
        percent: its score.
        unfamiliar: whether the photo is unlike those that the model learned from.
        alternatives: the other captions, each also as a sentence, and with its score in percent.
    """

    name: str
    error: str = ""
    preview: str = ""
    width: int = 0
    height: int = 0
    words: tuple[Word, ...] = ()
    alt_text: str = ""
    percent: int = 0
    unfamiliar: bool = False
    alternatives: tuple[tuple[str, str, int], ...] = ()


def result(photo: Photo) -> Result:
    """Caption a photo for the page.

    Raises:
        CaptionError: the photo cannot be read.
        Busy: too many photos wait already.
        NoModel: the model cannot be loaded.
    """
    current = service()
    best, *others = current.caption(photo)
    with _decoding:
        preview = open_rgb(photo.file())
        preview.thumbnail(PREVIEW_SIZE)
    words = words_of(best)
    heats = [""] * len(words)
    if best.attention is not None and (grid := current.captioner.engine.grid):
        maps = (heat_map(weights, grid, preview.size) for weights in best.attention)
        heats = [_data_url(heat, "PNG") for heat, _ in zip(maps, words, strict=False)]  # the last is of the end
    return Result(
        photo.name,
        preview=_data_url(preview, "JPEG"),
        width=preview.width,
        height=preview.height,
        words=tuple(Word(word, _percent(p), heat) for (word, p), heat in zip(words, heats, strict=True)),
        alt_text=alt_text(best),
        percent=_percent(best.score),
        unfamiliar=best.familiarity < UNFAMILIAR,
        alternatives=tuple((caption.text, alt_text(caption), _percent(caption.score)) for caption in others),
    )


def _percent(share: float) -> int:
    return round(100 * share)


def _data_url(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=82)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"

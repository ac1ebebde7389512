"""Photos that strangers send: in memory, in common formats only, and of a bounded size."""

import contextlib
import io
from dataclasses import dataclass

from PIL import Image

from caption_generator.common.errors import CaptionError
from caption_generator.images import NamedBytes

# The captioner reads many more. Those that cameras and browsers write are enough here, and their decoders are well
# tested. HEIC joins them where pillow-heif is installed.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "AVIF", "BMP")
MOST_PIXELS = 60_000_000

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS += ("HEIF",)


@dataclass(frozen=True)
class Photo:
    """The bytes of a photo, and what an error message calls it."""

    data: bytes
    name: str = "the photo"

    def file(self) -> io.BytesIO:
        """The photo as an open file."""
        return NamedBytes(self.data, self.name)

    def check(self, most_pixels: int = MOST_PIXELS) -> None:
        """Look at the header, before anything is decoded.

        Raises:
            CaptionError: the photo is in another format, or has too many pixels.
        """
        Image.init()
        try:
            with Image.open(self.file(), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                pixels = image.width * image.height
        except Image.DecompressionBombError:
            pixels = most_pixels + 1
        except Exception as error:  # a broken file makes Pillow raise nearly anything
            raise CaptionError(
                f"{self.name} is not a JPEG, PNG, WebP, GIF, AVIF or BMP picture: export it as JPEG."
            ) from error
        if pixels > most_pixels:
            raise CaptionError(
                f"{self.name} has more than {most_pixels // 1_000_000} million pixels: send a smaller one."
            )

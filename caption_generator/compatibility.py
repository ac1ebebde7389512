"""What belongs together: captions, vocabulary, features, encoder and decoder. A mismatch is refused by name."""

from caption_generator.captions import Descriptions
from caption_generator.checkpoint import read_about
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import decoder_row
from caption_generator.encoders import BUNDLED
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import Tokenizer, fit_tokenizer
from caption_generator.workspace import BUNDLED_MODEL


def check_tokenizer(train: Descriptions, tokenizer: Tokenizer) -> None:
    """Refuse the vocabulary of other captions.

    Raises:
        CaptionError: it does not hold the most frequent words of the training captions, however many of them.
    """
    if fit_tokenizer(train, min_count=1).words[: len(tokenizer)] != tokenizer.words:
        raise CaptionError(
            "tokenizer.p does not hold the most frequent words of the training captions: make it again with notebook 3."
        )


def check_captions(train: Descriptions, dev: Descriptions) -> None:
    """Refuse to train without captions.

    Raises:
        CaptionError: there are none.
    """
    if not train or not dev:
        raise CaptionError(
            "there are no training or no dev captions: check the split files in Flickr8k_text/, or, without these, add "
            "photos until there are 8."
        )


def check_features(system: System, features: Features) -> None:
    """Refuse features of another encoder than the system's.

    Raises:
        CaptionError: they are, or do not say what made them.
    """
    if features.encoder is None:
        raise CaptionError(
            "features.p does not say which encoder made it: extract the features again with notebook 2, or convert "
            "those of an older project with python -m caption_generator.legacy."
        )
    if not (_is_bundled(features) if system.encoder == BUNDLED else features.encoder.name == system.encoder):
        raise CaptionError(
            f"{system.name} reads features of the encoder {system.encoder}, and features.p comes from "
            f"{features.encoder}: extract them again with notebook 2."
        )
    check_pooling(system.decoder.name, features.encoder.pooling)


def _is_bundled(features: Features) -> bool:
    return features.encoder.weights == read_about(BUNDLED_MODEL)["encoder"]["weights"]


def check_pooling(decoder: str, pooling: str) -> None:
    """Refuse features that a decoder cannot read.

    Raises:
        CaptionError: it reads one vector an image and the features are grids, or the reverse.
    """
    wanted = decoder_row(decoder).pooling
    if wanted != pooling:
        raise CaptionError(
            f"the decoder {decoder} reads features with pooling {wanted!r}, and these have {pooling!r}: build "
            f"the encoder with pooling={wanted!r}, as notebook 2 does with the same CAPTION_SYSTEM."
        )

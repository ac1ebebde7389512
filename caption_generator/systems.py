"""The table of systems: an encoder, a decoder and the vocabulary, under one name.

The first six are the architectures of well-known student projects; the others are this project's own. To add a system,
add a row. The environment variable `CAPTION_SYSTEM` chooses the system of the notebooks. A name is an encoder and a
kind. Every encoder goes with every kind: `bundled-merge` needs no download.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from caption_generator.common.errors import look_up
from caption_generator.decoders import DecoderSpec, decoder_row
from caption_generator.encoders import BUNDLED, ENCODERS
from caption_generator.tokenizer import Tokenizer
from caption_generator.word_vectors import WordVectors, load_word_vectors
from caption_generator.workspace import Workspace


@dataclass(frozen=True)
class System:
    """One way to caption photos.

    Attributes:
        kind: what it is apart from its encoder. Systems of the same kind differ in nothing else.
        encoder: a row of `ENCODERS`.
        decoder: the settings of the decoder. Training fills in the sizes of features and vocabulary.
        min_count: words that are rarer in the training captions become `<unk>`.
        learning_rate: of Adam. The best rate differs between decoders. With 4e-3 instead of 1e-3, the merge model and
            the GRU reach a lower dev loss but write worse captions (CIDEr 35.2 instead of 41.3, in batches of 128; 20.0
            instead of 24.9), and the LSTM that starts from the image writes better ones (34.3 instead of 28.1). These
            figures are of 4 epochs, MobileNetV2 and one seed.
    """

    kind: str
    encoder: str
    decoder: DecoderSpec
    min_count: int = 4
    learning_rate: float = 1e-3

    @property
    def name(self) -> str:
        """The name that the user gives: encoder and kind."""
        return f"{self.encoder}-{self.kind}"

    @property
    def pooling(self) -> str:
        """The features that the decoder reads: "avg", one vector an image, or "grid", one vector at each position."""
        return decoder_row(self.decoder.name).pooling

    @property
    def pretrained(self) -> bool:
        """Whether training needs pretrained word vectors."""
        return self.decoder.frozen_words

    def load_vectors(self, workspace: Workspace, tokenizer: Tokenizer) -> WordVectors | None:
        """Load the pretrained word vectors that lie beside the captions; None if this system needs none.

        Raises:
            CaptionError: there are none, or as `load_word_vectors`.
        """
        if not self.pretrained:
            return None
        size = self.decoder.embedding_size
        path = workspace.word_vectors(size)
        # An archive holds several sizes. A single text file is used whatever its size.
        return load_word_vectors(path, tokenizer, size if path.suffix == ".zip" else None)


GLOVE: Mapping[str, Any] = {"frozen_words": True, "embedding_size": 200}
SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        System("merge", "xception", DecoderSpec("merge")),
        System("glove-merge-512", "resnet50", DecoderSpec("merge", **GLOVE, hidden=512), min_count=10),
        System("glove-merge", "inceptionv3", DecoderSpec("merge", **GLOVE)),
        # These learn slowly, and dropout of 0.5 slows them further.
        System("initial-state", "vgg16-fc2", DecoderSpec("initial_state", dropout=0.3), learning_rate=4e-3),
        System("initial-state", "inceptionv3", DecoderSpec("initial_state", dropout=0.3), learning_rate=4e-3),
        System("gru", "resnet50", DecoderSpec("initial_state", cell="gru", dropout=0.3)),
        System("attention", "mobilenetv2", DecoderSpec("attention", units=512, dropout=0.4)),
        System("attention", "efficientnet-lite2", DecoderSpec("attention", units=512, dropout=0.4)),
    )
}
DEFAULT = "xception-merge"
OFFLINE = f"{BUNDLED}-merge"


# Each kind once, whatever its encoder.
KINDS: Mapping[str, System] = {system.kind: system for system in SYSTEMS.values()}


def system_row(name: str) -> System:
    """Look a system up.

    Args:
        name: a row of `SYSTEMS`, or any encoder and any kind, such as `bundled-merge`. "bundled" is the encoder inside
            the shipped model.

    Raises:
        CaptionError: there is none of that name.
    """
    for encoder in (*ENCODERS, BUNDLED):
        kind = name.removeprefix(f"{encoder}-")
        if kind != name and kind in KINDS:
            return SYSTEMS.get(name) or replace(KINDS[kind], encoder=encoder)
    return look_up("system", name, SYSTEMS, f", or another encoder with one of these kinds, such as {OFFLINE}")


def chosen_system(workspace: Workspace) -> System:
    """The system that `CAPTION_SYSTEM` names, or else `DEFAULT`. On the sample, its encoder is the bundled one, which
    needs no download.

    Raises:
        CaptionError: there is none of that name.
    """
    system = system_row(os.environ.get("CAPTION_SYSTEM") or DEFAULT)
    return replace(system, encoder=BUNDLED) if workspace.is_sample else system

"""The table of systems: which encoder, which words, which decoder. A name stands for all that training must be told.

All but the last are what well-known student projects are made of, and the last is this project's own. To add a system,
add a row. The notebooks take the one that the environment variable `CAPTION_SYSTEM` names.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from caption_generator.common.errors import look_up
from caption_generator.decoders import DecoderSpec, decoder_row
from caption_generator.encoders import BUNDLED
from caption_generator.tokenizer import Tokenizer
from caption_generator.word_vectors import WordVectors, load_word_vectors
from caption_generator.workspace import Workspace


@dataclass(frozen=True)
class System:
    """One way to caption photos.

    Attributes:
        kind: what it is, its encoder aside; systems of the same kind differ in nothing else.
        encoder: a row of `ENCODERS`.
        decoder: a row of `DECODERS`: how the image enters.
        cell: a row of `CELLS`.
        words: how the words' embedding begins and whether it learns: "learned" begins by chance; "frozen" and
            "finetuned" begin with pretrained word vectors.
        min_count: words that the training captions have less often become `<unk>`.
        units: width of the cell and of the layers beside it.
        embedding_size: numbers that stand for a word.
        hidden: width of the layer before the last, where the decoder has one of its own.
        dropout: share of inputs dropped while training.
        learning_rate: of Adam. What suits one decoder does not suit another: with 4e-3 instead of 1e-3 the merge model
            and the GRU get less dev loss and worse captions (CIDEr 35.2 instead of 41.3, in batches of 128; 20.0
            instead of 24.9), and the LSTM that starts from the image gets better ones (34.3 instead of 28.1): 4
            epochs, MobileNetV2, one seed.
    """

    kind: str
    encoder: str
    decoder: str
    cell: str = "lstm"
    words: str = "learned"
    min_count: int = 4
    units: int = 256
    embedding_size: int = 256
    hidden: int = 256
    dropout: float = 0.5
    learning_rate: float = 1e-3

    @property
    def name(self) -> str:
        """What the user calls it."""
        return f"{self.encoder}-{self.kind}"

    @property
    def pooling(self) -> str:
        """What the decoder reads of an image: "avg", one vector, or "grid", one vector at each place."""
        return decoder_row(self.decoder).pooling

    @property
    def pretrained(self) -> bool:
        """Whether training must be given word vectors."""
        return self.words != "learned"

    def load_vectors(self, workspace: Workspace, tokenizer: Tokenizer) -> WordVectors | None:
        """The pretrained word vectors that training must be given, from beside the captions; None where none are.

        Raises:
            CaptionError: there are none, or as `load_word_vectors`.
        """
        if not self.pretrained:
            return None
        path = workspace.word_vectors(self.embedding_size)
        # An archive holds several sizes, of which this is one. A file that was put there alone is meant,
        # whatever its size.
        return load_word_vectors(path, tokenizer, self.embedding_size if path.suffix == ".zip" else None)

    def decoder_spec(self, feature_size: int, vocabulary_size: int) -> DecoderSpec:
        """The decoder, for features and a vocabulary of these sizes."""
        return DecoderSpec(
            self.decoder,
            feature_size,
            vocabulary_size,
            self.units,
            self.dropout,
            self.cell,
            self.embedding_size,
            self.words == "frozen",
            self.hidden,
        )


GLOVE = {"words": "frozen", "embedding_size": 200}
# These learn slowly, and dropout of 0.5 slows them further.
ONCE = {"decoder": "initial_state", "dropout": 0.3}
SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        System("merge", "xception", "merge"),
        System("glove-merge-512", "resnet50", "merge", **GLOVE, min_count=10, hidden=512),
        System("glove-merge", "inceptionv3", "merge", **GLOVE),
        System("initial-state", "vgg16-fc2", **ONCE, learning_rate=4e-3),
        System("initial-state", "inceptionv3", **ONCE, learning_rate=4e-3),
        System("gru", "resnet50", **ONCE, cell="gru"),
        System("attention", "mobilenetv2", "attention", units=512, dropout=0.4),
    )
}
DEFAULT = "xception-merge"


def system_row(name: str) -> System:
    """Look a system up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("system", name, SYSTEMS)


def chosen_system(workspace: Workspace) -> System:
    """The system that `CAPTION_SYSTEM` names, else the classroom's; on the sample, with the encoder that needs no
    download.

    Raises:
        CaptionError: there is none of that name.
    """
    system = system_row(os.environ.get("CAPTION_SYSTEM") or DEFAULT)
    return replace(system, encoder=BUNDLED) if workspace.is_sample else system

"""The engine that runs any checkpoint with TensorFlow."""

from pathlib import Path

import numpy as np

from caption_generator.checkpoint import Checkpoint, find_encoder, load_checkpoint
from caption_generator.encoders import Encoder
from caption_generator.inference.folding import compile_encoder


class KerasEngine:
    """A checkpoint and its encoder; see `engine.Engine`."""

    threads = 1  # TensorFlow itself uses all cores

    def __init__(self, checkpoint: Checkpoint, encoder: Encoder):
        """
        Args:
            checkpoint: from `load_checkpoint`.
            encoder: the one that it was trained with; see `checkpoint.find_encoder`.
        """
        self.checkpoint, self.encoder = checkpoint, encoder
        self.input_size = encoder.row.input_size
        self.tokenizer = checkpoint.tokenizer
        self.decoder = checkpoint.decoder
        self.detector, self.classifier = checkpoint.detector, checkpoint.classifier
        self.familiarity = checkpoint.familiarity
        self.grid = tuple(encoder.model.output.shape[1:3]) if encoder.pooling == "grid" else None
        self.description = f"{encoder.identity}, {len(self.tokenizer):,} words"
        self._encode = compile_encoder(encoder)

    @classmethod
    def load(cls, model: str | Path, encoder_weights: str | Path = "imagenet") -> "KerasEngine":
        """As `engine.load_engine`."""
        checkpoint = load_checkpoint(model)
        return cls(checkpoint, find_encoder(checkpoint, encoder_weights))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """As `Engine.encode`."""
        return self._encode(pixels)

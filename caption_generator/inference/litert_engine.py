"""The engine that runs an exported model with LiteRT (TensorFlow Lite), and needs neither TensorFlow nor Keras."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from caption_generator.common.console import native_stderr_silenced
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.inference.exported import ExportedModel

MOST_THREADS = 4  # each has networks of its own, about 50 MB, and more threads hardly make decoding faster


class LiteRTEngine:
    """An exported model; see `engine.Engine`. Threads may share it."""

    def __init__(self, model: ExportedModel):
        """
        Raises:
            CaptionError: LiteRT cannot read a network.
        """
        self.threads = min(available_cores(), MOST_THREADS)
        try:
            # LiteRT writes there which delegate it made.
            with native_stderr_silenced():
                networks = {name: Network(content, self.threads) for name, content in model.networks.items()}
        except (ValueError, RuntimeError) as error:
            raise CaptionError(
                f"LiteRT cannot read the exported model ({first_line(error)}): export it again."
            ) from error
        self._encoder = networks["encoder"]
        self.decoder = LiteRTDecoder(networks["start"], networks["step"])
        self.input_size, self.grid = model.input_size, model.grid
        self.tokenizer, self.description = model.tokenizer, model.description
        self.detector, self.classifier, self.familiarity = model.detector, model.classifier, model.familiarity

    @classmethod
    def load(cls, path: str | Path) -> "LiteRTEngine":
        """Load an exported model, such as `models/bundled.litert`.

        Raises:
            CaptionError: the file is missing, damaged, or of another version.
        """
        return cls(ExportedModel.load(path))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """As `Engine.encode`."""
        # One by one, since batches would be slower: the values between the layers of one photo fit into the cache.
        return np.concatenate([self._encoder(photo[None].astype(np.float32))[0] for photo in pixels])


class LiteRTDecoder:
    """An exported decoder; see `search.StepwiseDecoder`."""

    def __init__(self, start: "Network", step: "Network"):
        """
        Args:
            start: features of one image to what the decoder keeps of it, and the initial state.
            step: what is kept of the images, tokens and the state to logits, the state and, with attention, its
                weights.
        """
        self._start, self._step = start, step

    def begin(self, features: np.ndarray, copies: int) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        """See `search.StepwiseDecoder`."""
        begun = [self._start(image[None].astype(np.float32)) for image in features]
        image, *state = (np.concatenate(arrays) for arrays in zip(*begun, strict=True))
        return image, [np.repeat(array, copies, axis=0) for array in state]

    def advance(
        self, image: np.ndarray, state: Sequence[np.ndarray], tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, Sequence[np.ndarray]]:
        """See `search.StepwiseDecoder`."""
        logits, *found = self._step(image, tokens, *state)
        attention = found[len(state)] if len(found) > len(state) else None
        return logits, attention, found[: len(state)]


class Network:
    """One network, for any number of threads.

    An interpreter serves one thread at a time. Each call therefore borrows one of a few, which are made as they are
    needed, and waits if all of them are at work.
    """

    def __init__(self, content: bytes, most: int):
        """
        Args:
            content: of a `.tflite` file.
            most: the number of interpreters, and so of calls that run at the same time.

        Raises:
            ValueError: LiteRT cannot read it.
        """
        self._content = content
        self._turns = BoundedSemaphore(most)
        self._idle = [_Borrowed(content)]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run the network: its inputs, of any batch size that it takes, to copies of its outputs, both in its order."""
        with self._turns:
            try:
                interpreter = self._idle.pop()
            except IndexError:
                interpreter = _Borrowed(self._content)
            try:
                return interpreter(inputs)
            finally:
                self._idle.append(interpreter)


class _Borrowed:
    """An interpreter and the shapes that its memory is laid out for."""

    def __init__(self, content: bytes):
        # One thread for each photo, and as many photos as cores: so no core waits for another within a layer.
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = [row["index"] for row in self._interpreter.get_input_details()]
        self._outputs = [row["index"] for row in self._interpreter.get_output_details()]
        self._shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = [array.shape for array in inputs]
        if shapes != self._shapes:
            for index, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

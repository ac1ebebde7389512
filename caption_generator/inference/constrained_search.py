"""Beam search for captions that contain a given word.

Anderson et al. 2017, "Guided Open Vocabulary Image Captioning with Constrained Beam Search".
"""

import numpy as np

from caption_generator.search import BeamSearch, Caption, is_finished, top_k
from caption_generator.tokenizer import END


class ConstrainedBeamSearch(BeamSearch):
    """Beam search with two beams for each image: captions that lack its required words, and captions with one of them.

    Both advance together. A caption of the first beam moves into the second with a required word. Only captions of the
    second beam may end.
    """

    def __init__(self, search: BeamSearch, required: np.ndarray):
        """
        Args:
            search: whose decoder, vocabulary and width this search has.
            required: the words of which each image's caption must contain one: bool of shape (images,
                vocabulary_size).
        """
        super().__init__(search.decoder, search.tokenizer, search.beam, search.no_repeat)
        self.required = required[:, None, :]

    @property
    def rows(self) -> int:
        return 2 * self.beam

    def _choose(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        without, within = candidates.copy(), candidates
        without[:, self.beam :] = -np.inf
        without[:, :, END] = -np.inf
        without[np.broadcast_to(self.required, without.shape)] = -np.inf
        first = within[:, : self.beam]
        within[:, : self.beam] = np.where(self.required, first, -np.inf)
        flat = [beam.reshape(len(beam), -1) for beam in (without, within)]
        best = [top_k(beam, self.beam) for beam in flat]
        totals = [np.take_along_axis(beam, places, axis=1) for beam, places in zip(flat, best, strict=True)]
        return np.concatenate(totals, axis=1), np.concatenate(best, axis=1)

    def _is_done(self, last: np.ndarray) -> bool:
        return bool(is_finished(last[:, self.beam :]).all())

    def _captions(self, tokens: np.ndarray, log_probs: np.ndarray, attention: np.ndarray | None) -> list[list[Caption]]:
        """The captions of the second beam; fewer than `beam` or none where a required word was never possible."""
        second = np.arange(len(tokens)).reshape(-1, self.rows)[:, self.beam :].ravel()
        found = super()._captions(tokens[second], log_probs[second], None if attention is None else attention[second])
        return [[caption for caption in captions if caption.log_prob > -np.inf] for captions in found]

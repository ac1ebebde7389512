"""Beam search for captions that contain a given word.

Anderson et al. 2017, "Guided Open Vocabulary Image Captioning with Constrained Beam Search".
"""

import numpy as np

from caption_generator.search import NOTHING, BeamSearch, Caption, Ends, best_continuations
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
        super().__init__(search.decoder, search.tokenizer, search.beam, search.no_repeat, search.captions)
        self.required = required[:, None, :]

    def __call__(self, features: np.ndarray) -> list[list[Caption]]:
        """As `BeamSearch`, but without captions for an image whose required words were never possible."""
        return [[] if captions == [NOTHING] else captions for captions in super().__call__(features)]

    @property
    def rows(self) -> int:
        return 2 * self.beam

    def _choose(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray, Ends]:
        without, within = candidates.copy(), candidates
        without[:, self.beam :] = -np.inf
        without[:, :, END] = -np.inf
        without[np.broadcast_to(self.required, without.shape)] = -np.inf
        first = within[:, : self.beam]
        within[:, : self.beam] = np.where(self.required, first, -np.inf)
        *lacking, _ = best_continuations(without, self.beam)
        *naming, ends = best_continuations(within, self.beam)
        totals, best = (np.concatenate(pair, axis=1) for pair in zip(lacking, naming, strict=True))
        return totals, best, ends

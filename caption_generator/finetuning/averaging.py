"""The mean of the weights of several checkpoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from caption_generator.checkpoint import Checkpoint, load_checkpoint


def average_checkpoints(paths: Sequence[str | Path]) -> Checkpoint:
    """Average the weights of checkpoints that began as the same model. The rest is of the first checkpoint.

    Training moves around the optimum, and the mean of some epochs is nearer to it (Izmailov et al. 2018,
    "Averaging Weights Leads to Wider Optima and Better Generalization"). Runs with different seeds find different
    things, and the mean knows more than each (Wortsman et al. 2022, "Model soups").

    Raises:
        CaptionError: as `load_checkpoint`.
    """
    first, *others = [load_checkpoint(path) for path in paths]
    if not others:
        return first
    weights = zip(*(checkpoint.network.get_weights() for checkpoint in (first, *others)), strict=True)
    first.network.set_weights([np.mean(arrays, axis=0) for arrays in weights])
    names = [f"{Path(path).parent.name}/{Path(path).name}" for path in paths]
    averaged = [*first.training.get("averaged", []), names]
    return replace(
        first,
        encoder_identity=first.encoder.identity if first.encoder else first.encoder_identity,
        training=dict(first.training) | {"averaged": averaged},
        familiarity=None,  # learned on the features of one encoder; the averaged encoder has others
        detector=None,
    )

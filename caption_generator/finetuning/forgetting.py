"""Fine-tuning that does not forget ImageNet.

The caption loss alone would have the encoder forget most of the thousand classes that it can tell apart. So it is asked
to keep the answers of its classifier as they were: Li and Hoiem 2016, "Learning without Forgetting". The classifier
stays with the model and names things in its captions; see `inference.imagenet_classifier`.
"""

import tensorflow as tf

from caption_generator import efficientnet_lite
from caption_generator.encoders import encoder_row
from caption_generator.inference.imagenet_classifier import ImageNetClassifier


def forgotten(classifier: ImageNetClassifier, before: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
    """How far the answers to `now` are from those to `before`, in nats: the mean Kullback-Leibler divergence.

    Args:
        before: features, float32 of shape (photos, ..., feature_size).
        now: likewise.

    Returns:
        A scalar.
    """

    def answers(features: tf.Tensor) -> tf.Tensor:
        positions = tf.reshape(features, (tf.shape(features)[0], -1, features.shape[-1]))
        return tf.nn.log_softmax(tf.reduce_mean(positions, axis=1) @ classifier.kernel + classifier.bias)

    was, is_now = answers(before), answers(now)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(was) * (was - is_now), axis=-1))


def load_classifier(name: str) -> ImageNetClassifier | None:
    """The ImageNet classifier of the encoder called `name`; None for the encoders of `keras.applications`, whose
    classifiers are separate downloads.

    Raises:
        CaptionError: its weights are missing.
    """
    row = encoder_row(name)
    if row.module is not efficientnet_lite:
        return None
    network = getattr(row.module, row.builder)(include_top=True)
    return ImageNetClassifier(*network.get_layer("classes").get_weights())

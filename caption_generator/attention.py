"""The layers that Keras lacks: what the captions of an image share, and attention over the places of a grid."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("caption_generator")
class ForEachCaption(layers.Layer):
    """Repeats each row of `image` (images, units) for every caption of its image: (captions, units)."""

    def call(self, image, captions):
        images, units = ops.shape(image)[0], ops.shape(image)[-1]
        each = ops.shape(captions)[0] // images
        return ops.reshape(ops.broadcast_to(image[:, None], (images, each, units)), (images * each, units))

    def compute_output_spec(self, image, captions):
        return keras.KerasTensor((captions.shape[0], image.shape[-1]), image.dtype)


class WordsAsLastLayer(layers.Layer):
    """What `embedding(inputs, reverse=True)` computes, for the few rows of a search.

    That one transposes the words' embedding, each time. Here the inputs and the logits are transposed, which are small.
    """

    def __init__(self, embedding: layers.ReversibleEmbedding, **options):
        super().__init__(**options)
        self.embedding, self.bias = embedding, 0.0

    def call(self, inputs):
        return ops.transpose(ops.matmul(self.embedding.embeddings, ops.transpose(inputs)))

    @property
    def kernel(self):
        return ops.transpose(self.embedding.embeddings)


@keras.saving.register_keras_serializable("caption_generator")
class ByHead(layers.Layer):
    """Keys and values, each (images, places, units), as attention reads them: (images, 2, heads, places, size)."""

    def __init__(self, heads: int, **options):
        super().__init__(**options)
        self.heads = heads

    def call(self, keys, values):
        images, places, units = ops.shape(keys)
        both = ops.reshape(ops.stack([keys, values], axis=1), (images, 2, places, self.heads, units // self.heads))
        return ops.transpose(both, (0, 1, 3, 2, 4))

    def compute_output_spec(self, keys, values):
        images, places, units = keys.shape
        return keras.KerasTensor((images, 2, self.heads, places, units // self.heads), keys.dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads}


@keras.saving.register_keras_serializable("caption_generator")
class GridAttention(layers.Layer):
    """Scaled dot-product attention of words over the places of their image (Vaswani et al. 2017), in several heads.

    `queries` are (captions, length, units). `image` is of `ByHead`, and all captions of an image use the same. Gives
    the context, (captions, length, units), and the mean of the heads' attention weights, (captions, length, places).
    """

    def call(self, queries, image):
        captions, length, units = ops.shape(queries)
        images, _, heads, places, size = ops.shape(image)
        # Words do not look at one another, so the captions of an image can stand in one row.
        rows = captions // images * length
        queries = ops.transpose(ops.reshape(queries, (images, rows, heads, size)), (0, 2, 1, 3))
        weights = ops.softmax(ops.einsum("ihqs,ihps->ihqp", queries, image[:, 0]) / size**0.5)
        context = ops.transpose(ops.matmul(weights, image[:, 1]), (0, 2, 1, 3))
        weights = ops.reshape(ops.mean(weights, axis=1), (captions, length, places))
        return ops.reshape(context, (captions, length, units)), weights

    def compute_output_spec(self, queries, image):
        captions, length, units = queries.shape
        return (
            keras.KerasTensor((captions, length, units), queries.dtype),
            keras.KerasTensor((captions, length, image.shape[3]), queries.dtype),
        )

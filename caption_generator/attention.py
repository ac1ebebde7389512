"""The two layers that Keras lacks: attention over the positions of a grid, and one image for several captions."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("caption_generator")
class GridAttention(layers.Layer):
    """Scaled dot-product attention in several heads (Vaswani et al. 2017), from words to the positions of a grid.

    `keras.layers.MultiHeadAttention` projects queries, keys and values once more. Here the LSTM's output is the query
    as it is.

    Args:
        heads: the number of heads; it divides the number of units.
    """

    def __init__(self, heads: int = 4, **options):
        super().__init__(**options)
        self.heads = heads

    def call(self, queries, image):
        """Attend.

        Args:
            queries: (captions, length, units).
            image: (captions, positions, 2 x units), the keys and after them the values.

        Returns:
            The context, (captions, length, units), and the attention weights, the mean of all heads, (captions, length,
            positions). The weights of a word sum to 1.
        """
        captions, length, units = ops.shape(queries)
        positions, size = ops.shape(image)[1], units // self.heads
        queries = ops.reshape(queries, (captions, length, self.heads, size))
        image = ops.reshape(image, (captions, positions, 2, self.heads, size))
        logits = ops.einsum("clhs,cphs->chlp", queries, image[:, :, 0]) / size**0.5
        weights = ops.softmax(logits)
        context = ops.einsum("chlp,cphs->clhs", weights, image[:, :, 1])
        return ops.reshape(context, (captions, length, units)), ops.mean(weights, axis=1)

    def compute_output_spec(self, queries, image):
        captions, length, units = queries.shape
        return (
            keras.KerasTensor((captions, length, units), queries.dtype),
            keras.KerasTensor((captions, length, image.shape[1]), queries.dtype),
        )

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads}


@keras.saving.register_keras_serializable("caption_generator")
class RepeatForCaptions(layers.Layer):
    """Repeats each row of a tensor for every caption of its image: (images, ...) to (captions, ...).

    The captions of an image stand together, the same number for each image. `tokens`, (captions, length), tells how
    many there are. So the image is encoded once, however many captions it has.
    """

    def call(self, tensor, tokens):
        images, *shape = ops.shape(tensor)
        each = ops.shape(tokens)[0] // images
        repeated = ops.broadcast_to(tensor[:, None], (images, each, *shape))
        return ops.reshape(repeated, (images * each, *shape))

    def compute_output_spec(self, tensor, tokens):
        return keras.KerasTensor((tokens.shape[0], *tensor.shape[1:]), tensor.dtype)

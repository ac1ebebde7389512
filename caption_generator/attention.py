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
            queries: (captions, length, units). The captions of an image stand together, the same number for each.
            image: (images, positions, 2 x units), the keys and after them the values.

        Returns:
            The context, (captions, length, units), and the attention weights, the mean of all heads, (captions, length,
            positions). The weights of a word sum to 1.
        """
        captions, length, units = ops.shape(queries)
        images, positions, _ = ops.shape(image)
        size = units // self.heads
        # Words do not attend to one another, so those of all captions of an image can stand in one row.
        rows = captions // images * length
        queries = ops.reshape(queries, (images, rows, self.heads, size))
        image = ops.reshape(image, (images, positions, 2, self.heads, size))
        logits = ops.einsum("iqhs,iphs->ihqp", queries, image[:, :, 0]) / size**0.5
        weights = ops.softmax(logits)
        context = ops.einsum("ihqp,iphs->iqhs", weights, image[:, :, 1])
        weights = ops.reshape(ops.mean(weights, axis=1), (captions, length, positions))
        return ops.reshape(context, (captions, length, units)), weights

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
    """Repeats each row of a tensor for every caption of its image: (images, units) to (captions, units).

    The captions of an image stand together, the same number for each image. The first dimension of a second tensor
    tells how many captions there are.
    """

    def call(self, tensor, captions):
        images, *shape = ops.shape(tensor)
        each = ops.shape(captions)[0] // images
        repeated = ops.broadcast_to(tensor[:, None], (images, each, *shape))
        return ops.reshape(repeated, (images * each, *shape))

    def compute_output_spec(self, tensor, captions):
        return keras.KerasTensor((captions.shape[0], *tensor.shape[1:]), tensor.dtype)

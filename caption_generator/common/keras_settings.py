"""Keras as this project needs it, whatever the user's `keras.json` says: TensorFlow, 32-bit floats, channels last.

The modules that build networks import this one. `caption_generator/__init__.py` chooses the backend, before any import
of Keras.
"""

import keras

from caption_generator.common.errors import CaptionError

if keras.config.backend() != "tensorflow":
    raise CaptionError(
        f"Keras runs on {keras.config.backend()} here: set KERAS_BACKEND=tensorflow, or import caption_generator "
        "before Keras."
    )
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_image_data_format("channels_last")

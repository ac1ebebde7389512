"""The ancestors' way, plainly, as their notebooks have it. It is here to be compared with; the project does not use it.

One image a batch, every prefix of every caption a row of it, every next word a one-hot vector as long as the
vocabulary; `model.predict` on the padded prefix for every word of a new caption; one photo a time through Xception.
"""

import keras
import numpy as np
from keras import layers

UNITS = 256


def data_generator(captions, features, max_length, vocabulary_size):
    """Forever, image by image: ((features, padded prefixes), one-hot next words).

    Args:
        captions: for each image its captions, as lists of tokens from <start> to <end>.
        features: for each image its vector.
    """
    while True:
        for vector, group in zip(features, captions, strict=True):
            images, prefixes, next_words = [], [], []
            for tokens in group:
                for place in range(1, len(tokens)):
                    prefix = keras.utils.pad_sequences([tokens[:place]], maxlen=max_length)[0]
                    next_word = keras.utils.to_categorical([tokens[place]], num_classes=vocabulary_size)[0]
                    images.append(vector)
                    prefixes.append(prefix)
                    next_words.append(next_word)
            yield (np.array(images), np.array(prefixes)), np.array(next_words)


def define_model(feature_size, vocabulary_size, max_length, units=UNITS):
    """The merge model, from an image's vector and a padded prefix to the probabilities of the next word."""
    image = keras.Input((feature_size,))
    image_dense = layers.Dense(units, activation="relu", name="image_dense")(layers.Dropout(0.5)(image))
    prefix = keras.Input((max_length,))
    words = layers.Embedding(vocabulary_size, units, mask_zero=True, name="embedding")(prefix)
    lstm = layers.LSTM(units, name="lstm")(layers.Dropout(0.5)(words))
    hidden = layers.Dense(units, activation="relu", name="hidden")(layers.add([image_dense, lstm]))
    next_word = layers.Dense(vocabulary_size, activation="softmax", name="next_word")(hidden)
    model = keras.Model([image, prefix], next_word)
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def generate_tokens(model, vector, start, words, max_length):
    """Greedily, `words` tokens after `start`, with the whole prefix read anew for each."""
    tokens = [start]
    for _ in range(words):
        prefix = keras.utils.pad_sequences([tokens], maxlen=max_length)
        probabilities = model.predict([vector[None], prefix], verbose=0)
        tokens.append(int(np.argmax(probabilities)))
    return tokens


def extract_features(model, paths):
    """The Xception vectors of photos, one by one."""
    features = {}
    for path in paths:
        image = keras.utils.load_img(path, target_size=(299, 299))
        pixels = np.expand_dims(keras.utils.img_to_array(image), axis=0)
        features[path] = model.predict(pixels / 127.5 - 1.0, verbose=0)
    return features

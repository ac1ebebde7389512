"""Image captioning with a CNN encoder and an LSTM decoder, one module a step.

The data's way through the package, which is also the order of the notebooks:

    workspace   where the images and texts are, and where results go
    captions    1. read and clean the captions          -> descriptions.txt
    images         any picture file -> upright RGB
    encoders       the table of CNNs
    folding        the same networks with less to compute
    features    2. images -> feature vectors            -> features.p
    tokenizer   3. words <-> numbers                    -> tokenizer.p
    batches     4. captions and features -> batches
    word_vectors   pretrained ones (GloVe) for the vocabulary
    cells          the table of recurrent cells
    attention      the layers that Keras lacks
    decoders       the table of decoders
    systems        the table of systems: which encoder, words and decoder
    checkpoint     a model and what it belongs to       -> models/*.h5
    train          teacher forcing                      -> models/*.h5
    finetune       the same on the images, into the encoder
    rewards        what a caption is worth
    self_critical  learning from the worth of its own captions
    decoding    5. greedy and beam search
    evaluate       BLEU, METEOR, ROUGE-L, CIDEr, and what went wrong
    familiarity 6. is the photo like those learned from?
    detector       which words does it call for?
    captioner      photo in, caption out
    compare     7. every system on equal terms          -> models/compare/
    plots          every picture that the notebooks show
    recipe         all of it in one command: how the model that ships was made
    legacy         files of older projects, made with Keras 2 -> this project's own

    download       fetches the full Flickr8k
    files          errors, whole files and plain pickles; with `arguments`, `progress` and `quiet`, the floor of all

Importing the package itself costs nothing: TensorFlow is loaded by the first module that needs it.
"""

import os

__version__ = "0.1.0"

# TensorFlow has two sets of kernels for CPUs, and by itself takes oneDNN's on the newest only. On older ones, too, they
# convolve in half the time, and they reuse memory, where a step of training else spends a third on page faults.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever keras.json says; see common/keras_settings.py

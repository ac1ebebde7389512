"""Image captioning with a CNN encoder and an LSTM decoder, one module for each step.

The story, in the order in which data goes through the package. The numbers are those of the notebooks:

    workspace         where photos and captions are, and where results go
    captions       1  read, clean and divide the captions        -> descriptions.txt
    caption_files     the forms in which people keep captions
    images            any picture file -> upright RGB
    encoders          the table of CNNs
    efficientnet_lite CNNs that Keras lacks; torch_file reads their weights
    features       2  photos -> feature vectors or grids         -> features.p
    tokenizer      3  words <-> numbers                          -> tokenizer.p
    batches           captions and features -> training batches
    word_vectors      pretrained word vectors (GloVe)
    attention         two layers that Keras lacks
    decoders          the table of decoders: merge, initial state, attention
    systems           the table of systems: an encoder, a decoder and a vocabulary
    train          4  teacher forcing                            -> models/model_best.h5
    training_loop     checkpoints, log and resume
    checkpoint        a model and what it belongs to, in one file
    compatibility     what belongs together
    search         5  beam search: features -> captions
    evaluate          BLEU, METEOR, ROUGE-L, CIDEr, CHAIR, and what went wrong
    objects           the words for people, animals, things and places; imagenet_words has most of them
    captioner      6  photo in, caption out
    compare        7  every system on equal terms                -> models/compare/
    plots             the figures of the notebooks
    download          fetches the full Flickr8k

The machinery beside it:

    common/           errors, files, pickles, the console
    finetuning/    8  how the shipped model was trained: on the photos themselves, and by reward
    inference/        what makes captioning faster, and the captions of the shipped model better
    cluster/          captions and features of many photos on Spark
    legacy/           files of older projects, made with Keras 2

Importing the package itself costs nothing. TensorFlow is loaded by the first module that needs it.
"""

import os

__version__ = "0.1.0"

# By itself, TensorFlow uses oneDNN only on new CPUs. On older ones, too, convolutions take half the time with it. It
# also reuses memory; without it, a step of training spends a third of its time on page faults.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever keras.json says; see common/keras_settings.py

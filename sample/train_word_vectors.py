"""Train word vectors on the sample's captions, in the format of GloVe: a stand-in for `glove.6B.zip`.

    pip install "gensim>=4.3,<5"
    python -m sample.train_word_vectors

They are word2vec's (Mikolov et al. 2013), as gensim trains them. Real ones have read billions of words, these not a
thousand sentences. The same gensim gives the same file each time.
"""

from zlib import crc32

from gensim.models import Word2Vec

from caption_generator.captions import clean_captions, load_splits, read_captions
from caption_generator.workspace import SAMPLE, Workspace

SIZE = 50


def main() -> None:
    workspace = Workspace(SAMPLE, SAMPLE)
    captions = clean_captions(read_captions(workspace.captions).captions)
    train = load_splits(workspace, captions)["train"]
    model = Word2Vec(
        [caption.split() for name in train for caption in captions[name]],
        vector_size=SIZE,
        min_count=1,
        sg=1,
        epochs=50,
        seed=0,
        workers=1,  # several would race
        hashfxn=lambda text: crc32(text.encode()),  # Python's own differs from run to run
    )
    with open(workspace.texts / f"glove.sample.{SIZE}d.txt", "w", encoding="utf-8", newline="\n") as file:
        for word in model.wv.index_to_key:
            print(word, *(f"{value:.3f}" for value in model.wv[word]), file=file)


if __name__ == "__main__":
    main()

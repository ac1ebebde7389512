"""Every picture that the notebooks and the script show. Each function returns the matplotlib figure that it drew."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from caption_generator.captioner import Result
from caption_generator.captions import Descriptions
from caption_generator.common.files import replacing
from caption_generator.evaluate import FUNCTION_WORDS, Mistakes, Scores
from caption_generator.images import open_rgb
from caption_generator.inference.out_of_distribution import directions
from caption_generator.search import Caption
from caption_generator.tokenizer import END, SPECIAL_TOKENS, Tokenizer

BLUE, ORANGE, GREY = "#3b6ea5", "#d9822b", "#8a8a8a"


def photos(
    folder: str | Path, captions: Mapping[str, Sequence[str] | str], columns: int = 3, width: int = 34
) -> Figure:
    """Photos in a grid, each with its captions below, in lines of `width` letters."""
    columns = min(columns, len(captions))
    texts = [_lines(lines, width) for lines in captions.values()]
    figure, axes = _photo_grid(texts, columns)
    for axis, name, text in zip(axes, captions, texts, strict=False):
        _show_photo(axis, Path(folder, name), text)
    return figure


def _lines(captions: Sequence[str] | str, width: int) -> str:
    """One caption, or several, whose further lines are indented to tell them apart."""
    if isinstance(captions, str):
        return fill(captions, width)
    # People's captions end with " .", and the full stop must not stand on a line of its own.
    whole = [caption.replace(" .", "\u00a0.") for caption in captions]
    return "\n".join(fill(caption, width, subsequent_indent="    ") for caption in whole).replace("\u00a0", " ")


def _photo_grid(texts: Sequence[str], columns: int) -> tuple[Figure, list[Axes]]:
    """Axes for photos, with room below each row for the longest of its texts."""
    rows = [texts[start : start + columns] for start in range(0, len(texts), columns)]
    heights = [3.1 + 0.19 * max(text.count("\n") + 1 for text in row) for row in rows]
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(4.2 * columns, sum(heights)), height_ratios=heights, squeeze=False
    )
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("NW")
    return figure, list(axes.flat)


def _show_photo(axis: Axes, path: Path, text: str) -> None:
    axis.imshow(_small(path))
    # Dollars are money here: matplotlib takes what is between two of them for a formula.
    axis.text(0, -0.04, text, transform=axis.transAxes, va="top", fontsize=12, linespacing=1.25, parse_math=False)


def _small(path: str | Path, size: int = 600) -> Image.Image:
    image = open_rgb(path)
    image.thumbnail((size, size))  # all photos of a figure are in memory until it is drawn
    return image


def caption_statistics(descriptions: Descriptions, top: int = 20) -> Figure:
    """How long captions are, and which words are the most frequent."""
    split = [caption.split() for group in descriptions.values() for caption in group]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(1, 1.4))
    lengths = [len(words) for words in split]
    left.hist(lengths, bins=np.arange(0.5, max(lengths) + 1.5), color=BLUE, rwidth=0.9)
    left.set(xlabel="words in a caption", ylabel="captions")
    words, counts = zip(*Counter(word for words in split for word in words).most_common(top), strict=True)
    right.bar(words, counts, color=ORANGE)
    right.set(ylabel="occurrences")
    right.tick_params(axis="x", rotation=60)
    return _tidy(figure)


def neighbours(
    folder: str | Path, names: Sequence[str], vectors: np.ndarray, queries: Sequence[int], nearest: int = 4
) -> Figure:
    """Some images, each with the images whose feature vectors, or the means of their grids, are nearest (cosine).

    Args:
        folder: of the images.
        names: the images' file names.
        vectors: their features, of shape (images, ..., feature_size).
        queries: the numbers of the images to show.
        nearest: how many images beside each of them.
    """
    unit = directions(vectors)
    figure, axes = plt.subplots(
        len(queries), nearest + 1, figsize=(2.4 * (nearest + 1), 2 * len(queries)), squeeze=False
    )
    for row, query in zip(axes, queries, strict=True):
        similarity = unit @ unit[query]
        for axis, index in zip(row, np.argsort(-similarity), strict=False):
            axis.imshow(_small(Path(folder, names[index]), 300))
            axis.set_title("query" if index == query else f"{similarity[index]:.2f}", fontsize=12)
            axis.axis("off")
    return _tidy(figure)


def vocabulary_coverage(captions: Iterable[str], tokenizers: Mapping[int, Tokenizer]) -> Figure:
    """For some minimum counts: how many words remain, and how much of the text they cover."""
    counts = Counter(word for caption in captions for word in caption.split())
    total = sum(counts.values())
    sizes = {minimum: len(tokenizer) - len(SPECIAL_TOKENS) for minimum, tokenizer in tokenizers.items()}
    covered = {m: 100 * sum(counts[word] for word in t.words) / total for m, t in tokenizers.items()}
    figure, axis = plt.subplots(figsize=(8, 3.6))
    positions = np.arange(len(sizes))
    axis.bar(positions, list(sizes.values()), color=BLUE)
    for position, minimum in enumerate(sizes):
        axis.text(position, sizes[minimum], f"{covered[minimum]:.1f} %", ha="center", va="bottom")
    axis.set_xticks(positions, [f"≥ {minimum}" for minimum in sizes])
    axis.margins(y=0.12)  # room for the numbers
    axis.set(
        xlabel="times that a word must occur",
        ylabel="words kept",
        title="size of the vocabulary, and the percentage of the text that it covers",
    )
    return _tidy(figure)


def teacher_forcing_table(inputs: np.ndarray, targets: np.ndarray, tokenizer: Tokenizer, rows: int = 3) -> Figure:
    """The first captions of a batch: what the decoder reads, and below it what it must answer.

    Args:
        inputs: int32 of shape (captions, length).
        targets: of the same shape.
    """
    length = inputs.shape[1]
    figure, axis = plt.subplots(figsize=(1.05 * length, 0.75 * rows))
    axis.axis("off")
    for row in range(min(rows, len(inputs))):
        for line, (tokens, colour) in enumerate(((inputs[row], BLUE), (targets[row], ORANGE))):
            for position, token in enumerate(tokens):
                colour_here = colour if token else GREY
                axis.text(position, -row - 0.36 * line, tokenizer.words[token], color=colour_here, ha="center")
    axis.set(xlim=(-0.6, length - 0.4), ylim=(-rows + 0.3, 0.5))
    return figure


def losses(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training and dev loss by epoch."""
    figure, axis = plt.subplots(figsize=(7, 4))
    epochs = [row["epoch"] for row in history]
    axis.plot(epochs, [row["loss"] for row in history], "o-", color=BLUE, label="train (with dropout)")
    axis.plot(epochs, [row["val_loss"] for row in history], "o-", color=ORANGE, label="dev")
    best = min(history, key=lambda row: row["val_loss"])
    axis.axvline(best["epoch"], color=GREY, linestyle=":", label=f"best epoch: {best['epoch']}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel="loss (nats per word)")
    axis.legend()
    return _tidy(figure)


def stages(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """How the dev score grew from stage to stage of the training."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    first = 1
    for stage, history in histories.items():
        epochs = np.arange(first, first + len(history))
        axis.plot(epochs, [row["val_cider"] for row in history], "o-", label=stage)
        first += len(history)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="epoch, over all stages", ylabel="CIDEr of the dev images, greedy")
    axis.legend()
    return _tidy(figure)


def score_distribution(scores: Scores) -> Figure:
    """How the scores of the single images are spread around their median."""
    measures = ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr")
    figure, axes = plt.subplots(1, len(measures), figsize=(3.4 * len(measures), 3))
    for axis, measure in zip(axes, measures, strict=True):
        axis.hist(scores.by_image[measure], bins=20, color=BLUE)
        axis.axvline(np.median(scores.by_image[measure]), color=ORANGE)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(title=measure, xlabel="score of one image")
    axes[0].set(ylabel="images")
    return _tidy(figure)


def length_scores(by_length: Mapping[int, np.ndarray]) -> Figure:
    """The mean CIDEr of captions of each length, with how many there are."""
    figure, axis = plt.subplots(figsize=(8, 3.4))
    means = [values.mean() for values in by_length.values()]
    axis.bar(list(by_length), means, color=BLUE)
    for (length, values), mean in zip(by_length.items(), means, strict=True):
        axis.text(length, mean, str(len(values)), ha="center", va="bottom", color=GREY)
    axis.margins(y=0.12)  # room for the numbers
    axis.set_xticks(list(by_length))
    axis.set(xlabel="words in the caption (number above: captions of that length)", ylabel="mean CIDEr")
    return _tidy(figure)


def word_use(model: Mapping[str, float], humans: Mapping[str, float], top: int = 20) -> Figure:
    """Of a hundred captions, how many say each of the humans' most frequent words: the model's beside theirs."""
    words = list(humans)[:top]
    figure, axis = plt.subplots(figsize=(11, 3.6))
    positions = np.arange(len(words))
    axis.bar(positions - 0.2, [humans[word] for word in words], 0.4, color=GREY, label="humans")
    axis.bar(positions + 0.2, [model.get(word, 0) for word in words], 0.4, color=BLUE, label="model")
    axis.set_xticks(positions, words, rotation=60)
    axis.set(ylabel="captions of 100 that use it")
    axis.legend()
    return _tidy(figure)


def attention(photo: str | Path, caption: Caption, grid: tuple[int, int], columns: int = 5) -> Figure:
    """The attention weights of each word of a caption over the photo, a cell for each position.

    The titles of function words are grey.

    Args:
        caption: from a model with attention.
        grid: rows and columns of the positions, as `Engine.grid` gives them.
    """
    words, weights = [word for word, _ in caption.words], caption.attention.reshape(-1, *grid)
    image = _small(photo, 360)
    rows = -(-(len(words) + 1) // columns)
    height = 2.6 * image.height / image.width + 0.3
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, height * rows), squeeze=False)
    extent = (0, image.width, image.height, 0)
    for axis in axes.flat:
        axis.axis("off")
    axes.flat[0].imshow(image)
    for axis, word, cells in zip(axes.flat[1:], words, weights, strict=False):
        axis.imshow(image.convert("L"), cmap="gray", extent=extent)
        axis.imshow(cells, cmap="inferno", alpha=0.55, vmin=0, vmax=weights.max(), extent=extent)
        telling = word not in FUNCTION_WORDS and word not in SPECIAL_TOKENS
        axis.set_title(word, fontsize=13, color="black" if telling else GREY, parse_math=False)
    return _tidy(figure)


def beam_tree(steps: Sequence[Sequence[tuple[float, Sequence[str]]]], beam: int) -> Figure:
    """The first steps of a beam search as a tree.

    Args:
        steps: the candidates of each step, the best first: the log-probability of a beginning, and its words. The last
            word of a complete caption is `<end>`.
        beam: how many beginnings of a step are kept. A caption that is complete is kept if it is among as many best.
    """
    figure, axis = plt.subplots(figsize=(11.5, 0.62 * max(map(len, steps)) + 0.6))
    axis.axis("off")
    before: dict[tuple[str, ...], tuple[float, float]] = {
        (): (0.0, 0.0)
    }  # the kept beginnings: height, log-probability
    axis.text(0, 0, "<start>", ha="center", va="center", bbox=_box(BLUE))
    for column, candidates in enumerate(steps, 1):
        going_on = [tuple(words) for _, words in candidates if words[-1] != SPECIAL_TOKENS[END]]
        kept = {tuple(words) for _, words in candidates[:beam]} | set(going_on[:beam])
        parents = [tuple(words[:-1]) for _, words in candidates]
        # Below one another in the order of their parents, so that no two branches cross.
        order = sorted(range(len(candidates)), key=lambda n: (-before[parents[n]][0], n))
        heights = {n: (len(order) - 1) / 2 - place for place, n in enumerate(order)}
        found = {}
        for n, (total, words) in enumerate(candidates):
            words, (parent_height, parent_total) = tuple(words), before[parents[n]]
            colour = BLUE if words in kept else GREY
            axis.plot((column - 0.7, column - 0.25), (parent_height, heights[n]), color=colour, linewidth=1.2, zorder=0)
            box = _box(colour) if words in kept else None
            axis.text(column, heights[n], words[-1], ha="center", va="center", color=colour, bbox=box)
            probability = f"\N{MULTIPLICATION SIGN} {np.exp(total - parent_total):.2f}"
            if words in kept:
                probability += f" = {np.exp(total):.3f}"
                found[words] = heights[n], total
            axis.text(column, heights[n] - 0.43, probability, ha="center", va="center", color=colour, fontsize=9)
        before = found
    axis.set(xlim=(-0.4, len(steps) + 0.4), ylim=(-max(map(len, steps)) / 2 - 0.2, max(map(len, steps)) / 2))
    return _tidy(figure)


def _box(colour: str) -> dict:
    return {"boxstyle": "round", "facecolor": "white", "edgecolor": colour}


def worst(
    folder: str | Path,
    scores: Scores,
    candidates: Mapping[str, str],
    mistakes: Mapping[str, Mistakes],
    count: int = 6,
    columns: int = 3,
) -> Figure:
    """The images with the worst captions by CIDEr, and what is wrong with each."""
    order = np.argsort(scores.by_image["CIDEr"], kind="stable")[:count]
    names = [scores.images[index] for index in order]
    return photos(folder, {name: [candidates[name], f"({mistakes[name]})"] for name in names}, columns)


def gallery(
    folder: str | Path, scores: Scores, candidates: Mapping[str, str], references: Descriptions, each: int = 3
) -> Figure:
    """The images with the best, the median and the worst captions by CIDEr, each with one human caption.

    Of fewer than three images, all are shown.
    """
    order = np.argsort(-scores.by_image["CIDEr"], kind="stable")
    each = max(1, min(each, len(order) // 3))
    middle = (len(order) - each) // 2
    groups = {"best": order[:each], "median": order[middle : middle + each], "worst": order[len(order) - each :]}
    if len(order) < 3:
        groups, each = {"all": order}, len(order)
    chosen = [(title, index, scores.images[index]) for title, indices in groups.items() for index in indices]
    texts = [_lines([candidates[name], f"human: {references[name][0]}"], 34) for *_, name in chosen]
    figure, axes = _photo_grid(texts, each)
    for axis, text, (title, index, name) in zip(axes, texts, chosen, strict=True):
        _show_photo(axis, Path(folder, name), text)
        axis.set_title(f"{title}: CIDEr {scores.by_image['CIDEr'][index]:.0f}", fontsize=12, color=GREY)
    return figure


def comparison(
    groups: Mapping[tuple[str, str], Sequence[Mapping[str, float]]],
    measures: Sequence[str] = ("BLEU-4", "METEOR", "CIDEr"),
) -> Figure:
    """The dev scores of every kind of system: a dot for each seed, a stroke at the mean, a colour for each encoder.

    Args:
        groups: (encoder, kind) to the scores of each seed; see `compare.scores_by_kind`.
    """
    encoders, kinds = (list(dict.fromkeys(part)) for part in zip(*groups, strict=True))
    height = 1.4 + 0.42 * max(3, len(kinds))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(4 * len(measures), height), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, measure in zip(axes[0], measures, strict=True):
        for (encoder, kind), runs in groups.items():
            values = [run.get(measure, np.nan) for run in runs]
            y = kinds.index(kind) + 0.24 * (encoders.index(encoder) - (len(encoders) - 1) / 2)
            colour = (BLUE, ORANGE, GREY)[encoders.index(encoder) % 3]
            axis.plot(values, [y] * len(values), "o", color=colour, markersize=5, alpha=0.6)
            axis.plot([np.mean(values)], [y], "|", color=colour, markersize=14, markeredgewidth=2, label=encoder)
        axis.set_title(measure)
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(kinds)), kinds)
    axes[0, 0].invert_yaxis()
    strokes = {line.get_label(): line for line in axes[0, -1].lines if line.get_marker() == "|"}
    for axis in axes[0]:
        axis.margins(y=0.12)
    figure.legend(strokes.values(), strokes, loc="outside upper center", ncols=len(strokes), frameon=False)
    return figure


def word_probabilities(photo: str | Path, caption: Caption) -> Figure:
    """A photo, and how sure the model was of each word when it wrote it."""
    words, probabilities = zip(*caption.words, strict=True)
    figure = _words_beside(photo, words, probabilities, "probability, given the photo and the words above")
    figure.suptitle(f"{caption.text}  (score {caption.score:.2f})", fontsize=14, parse_math=False)
    return _tidy(figure)


def predicted_words(photo: str | Path, likely: Mapping[str, float]) -> Figure:
    """A photo, and how likely the words that it predicts are in people's captions of it."""
    words, probabilities = zip(*likely.items(), strict=True)
    return _tidy(_words_beside(photo, words, probabilities, "probability in people's captions of it"))


def _words_beside(photo: str | Path, words: Sequence[str], probabilities: Sequence[float], label: str) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1, 1.3))
    left.imshow(_small(photo))
    left.axis("off")
    positions = np.arange(len(words))
    right.barh(positions, probabilities, color=BLUE)
    longest = max(*probabilities, 0.01)
    for position, probability in zip(positions, probabilities, strict=True):
        right.text(probability + 0.01 * longest, position, f"{probability:.2f}", va="center", fontsize=10)
    right.set_yticks(positions, words, fontsize=12)
    right.invert_yaxis()
    right.set(xlim=(min(*probabilities, 0), 1.12 * longest), xlabel=label)
    return figure


def show_or_save(results: Sequence[Result], path: str | Path) -> Path | None:
    """Show captioned photos in a window; where matplotlib has none to show, write them to `path` and return it."""
    figure = photos("", {str(result.path.resolve()): result.best.text for result in results}, columns=3)
    # Without a display, and with the MPLBACKEND that Jupyter leaves to the commands it runs, nothing would be seen.
    if figure.canvas.required_interactive_framework:
        plt.show()
        return None
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")  # whatever the suffix, or without one
    return Path(path)


def _tidy(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure

"""Tests of caption_generator.plots."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from caption_generator import plots
from caption_generator.batches import CaptionBatches
from caption_generator.captioner import Result
from caption_generator.captions import read_captions
from caption_generator.common.errors import CaptionError
from caption_generator.evaluate import Mistakes, Scores
from caption_generator.search import Caption
from caption_generator.tokenizer import END, START, Tokenizer
from caption_generator.train import TrainSettings

CAPTION = Caption("red wall", (("red", 0.5), ("wall", 0.25), ("<end>", 1.0)), float(np.log(0.5)))


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plots.plt.close("all")


@pytest.fixture
def descriptions(workspace) -> dict[str, list[str]]:
    return read_captions(workspace.captions).captions


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def pictures(figure) -> list:
    return [axis for axis in figure.axes if axis.images]


def test_photos_have_their_captions_below(workspace, descriptions):
    chosen = dict(list(descriptions.items())[:4])
    figure = plots.photos(workspace.images, chosen, columns=3)
    assert len(figure.axes) == 6
    assert len(pictures(figure)) == 4
    for axis, captions in zip(figure.axes, chosen.values(), strict=False):
        assert texts(axis) == ["\n".join(captions)]


def test_a_full_stop_stays_with_the_last_word(workspace, descriptions):
    [name, *_] = descriptions
    figure = plots.photos(workspace.images, {name: ["A white dog stands on rocky ground ."]})
    assert texts(figure.axes[0]) == ["A white dog stands on rocky\n    ground ."]


def test_caption_statistics_count_lengths_and_words():
    figure = plots.caption_statistics({"a.jpg": ["a dog", "a dog runs"], "b.jpg": ["a cat"]}, top=2)
    lengths, words = figure.axes
    assert [bar.get_height() for bar in lengths.patches] == [0, 2, 1]
    assert [bar.get_height() for bar in words.patches] == [3, 2]
    figure.canvas.draw()
    assert [label.get_text() for label in words.get_xticklabels()] == ["a", "dog"]


def test_neighbours_start_with_the_query_and_go_by_angle(workspace):
    names = workspace.image_names()[:4]
    vectors = np.array([[1, 0], [0, 1], [5, 1], [1, 1]], np.float32)
    figure = plots.neighbours(workspace.images, names, vectors, queries=[0, 1], nearest=2)
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in figure.axes] == ["query", "0.98", "0.71", "query", "0.71", "0.20"]


def test_vocabulary_coverage_has_a_bar_and_a_share_for_each_minimum():
    captions = ["a dog", "a dog runs", "a cat"]
    tokenizers = {minimum: Tokenizer.fit(captions, minimum) for minimum in (1, 2, 3)}
    (axis,) = plots.vocabulary_coverage(captions, tokenizers).axes
    assert [bar.get_height() for bar in axis.patches] == [4, 2, 1]
    assert texts(axis) == ["100.0 %", "71.4 %", "42.9 %"]


def test_the_teacher_forcing_table_shows_reading_above_answer(tokenizer):
    inputs, targets = np.array([[START, 5, 6], [START, 7, 0]]), np.array([[5, 6, END], [7, END, 0]])
    (axis,) = plots.teacher_forcing_table(inputs, targets, tokenizer, rows=2).axes
    expected = ["<start>", "w01", "w02", "w01", "w02", "<end>", "<start>", "w03", "<pad>", "w03", "<end>", "<pad>"]
    assert texts(axis) == expected


def test_losses_mark_the_best_epoch():
    history = [{"epoch": n, "loss": 4 - n, "val_loss": v} for n, v in ((1, 3.0), (2, 2.0), (3, 2.5))]
    (axis,) = plots.losses(history).axes
    train, dev, best = axis.lines
    assert train.get_ydata().tolist() == [3, 2, 1]
    assert dev.get_ydata().tolist() == [3, 2, 2.5]
    assert best.get_xdata()[0] == 2
    assert "best epoch: 2" in [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.fixture
def scores(workspace) -> Scores:
    values = np.arange(12.0)[::-1]
    measures = ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr")
    return Scores(dict.fromkeys(measures, 5.0), dict.fromkeys(measures, values), workspace.image_names(), "PTB")


def test_score_distribution_has_a_histogram_for_each_measure(scores):
    figure = plots.score_distribution(scores)
    assert [axis.get_title() for axis in figure.axes] == ["BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"]
    for axis in figure.axes:
        assert sum(bar.get_height() for bar in axis.patches) == 12
        assert axis.lines[0].get_xdata()[0] == 5.5


def test_the_gallery_goes_from_best_to_worst(workspace, scores, descriptions):
    candidates = {name: f"caption of {name}" for name in scores.images}
    figure = plots.gallery(workspace.images, scores, candidates, descriptions, each=2)
    assert [axis.get_title() for axis in figure.axes] == [
        *("best: CIDEr 11", "best: CIDEr 10"),
        *("median: CIDEr 6", "median: CIDEr 5"),
        *("worst: CIDEr 1", "worst: CIDEr 0"),
    ]
    first = scores.images[0]
    assert texts(figure.axes[0]) == [f"caption of {first}\nhuman: {descriptions[first][0]}"]


def test_the_worst_captions_come_first_with_their_mistakes(workspace, scores, descriptions):
    candidates = {name: f"caption of {name}" for name in scores.images}
    mistakes = {name: Mistakes([f"m{number}"], [], []) for number, name in enumerate(scores.images)}
    figure = plots.worst(workspace.images, scores, candidates, mistakes, count=2)
    order = np.argsort(scores.by_image["CIDEr"], kind="stable")
    for axis, index in zip(pictures(figure), order[:2], strict=True):
        [text] = texts(axis)
        assert text == f"caption of {scores.images[index]}\n(invented: m{index})"


def test_length_scores_have_a_bar_and_a_count_for_each_length():
    figure = plots.length_scores({3: np.array([10.0, 30.0]), 5: np.array([50.0])})
    [axis] = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [20, 50]
    assert texts(axis) == ["2", "1"]


def test_word_use_compares_the_humans_most_frequent_words():
    figure = plots.word_use({"a": 90, "cat": 30}, {"a": 80, "dog": 20, "cat": 10}, top=2)
    [axis] = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [80, 20, 90, 0]


def test_stages_follow_one_another():
    histories = {"first": [{"val_cider": 10}, {"val_cider": 20}], **{name: [{"val_cider": 30}] for name in "abcd"}}
    [axis] = plots.stages(histories).axes
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 2], [3], [4], [5], [6]]
    assert [list(line.get_ydata()) for line in axis.lines] == [[10, 20], [30], [30], [30], [30]]
    assert len({line.get_color() for line in axis.lines}) == 5


def test_attention_shows_the_photo_and_a_map_over_it_for_each_word(workspace):
    weights = np.random.default_rng(0).random((3, 42))
    caption = replace(CAPTION, attention=weights)
    figure = plots.attention(workspace.images / workspace.image_names()[0], caption, (6, 7), columns=2)
    photo, *maps = pictures(figure)
    assert len(photo.images) == 1
    assert [axis.get_title() for axis in maps] == ["red", "wall", "<end>"]
    for axis, grid in zip(maps, weights.reshape(3, 6, 7), strict=True):
        below, above = axis.images
        np.testing.assert_array_equal(above.get_array(), grid)
        assert above.get_extent() == below.get_extent()


def test_word_probabilities_have_a_bar_for_each_word_and_the_end(workspace):
    photo = workspace.images / workspace.image_names()[0]
    figure = plots.word_probabilities(photo, CAPTION)
    left, right = figure.axes
    assert len(left.images) == 1
    assert [bar.get_width() for bar in right.patches] == [0.5, 0.25, 1.0]
    assert [label.get_text() for label in right.get_yticklabels()] == ["red", "wall", "<end>"]
    assert texts(right) == ["0.50", "0.25", "1.00"]
    assert figure.get_suptitle() == "red wall  (score 0.50)"


def test_predicted_words_have_a_bar_each(workspace):
    photo = workspace.images / workspace.image_names()[0]
    left, right = plots.predicted_words(photo, {"wall": 0.75, "red": 0.5}).axes
    assert len(left.images) == 1
    assert [bar.get_width() for bar in right.patches] == [0.75, 0.5]
    assert [label.get_text() for label in right.get_yticklabels()] == ["wall", "red"]
    assert texts(right) == ["0.75", "0.50"]


@pytest.mark.parametrize("out", ["captioned.png", "captioned", "captioned.picture"])
def test_without_a_display_the_picture_is_written_as_png_whatever_its_name(out, workspace, tmp_path):
    results = [Result(workspace.images / name, (CAPTION,)) for name in workspace.image_names()[:2]]
    path = tmp_path / "out" / out
    assert plots.show_or_save(results, path) == path
    assert list(path.parent.iterdir()) == [path]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height / 2


def test_where_matplotlib_has_no_window_the_picture_is_written_too(workspace, tmp_path):
    """With the MPLBACKEND that Jupyter leaves to the commands of a cell, nothing would be seen."""
    results = [Result(workspace.images / workspace.image_names()[0], (CAPTION,))]
    before = plots.plt.get_backend()
    plots.plt.switch_backend("svg")
    try:
        assert plots.show_or_save(results, tmp_path / "captioned.png") == tmp_path / "captioned.png"
    finally:
        plots.plt.switch_backend(before)


def test_a_picture_that_cannot_be_written_is_said(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    results = [Result(workspace.images / workspace.image_names()[0], (CAPTION,))]
    with pytest.raises(CaptionError, match=r"cannot write .*captioned\.png"):
        plots.show_or_save(results, tmp_path / "file" / "captioned.png")


def test_neighbours_of_grids_are_those_of_their_means(workspace):
    names = workspace.image_names()[:4]
    vectors = np.random.default_rng(0).uniform(size=(4, 3))
    spread = np.random.default_rng(1).normal(size=(4, 2, 2, 3))
    grids = vectors[:, None, None] + spread - spread.mean(axis=(1, 2), keepdims=True)
    titles = [
        [axis.get_title() for axis in plots.neighbours(workspace.images, names, given, queries=[0, 2], nearest=3).axes]
        for given in (vectors, grids)
    ]
    assert titles[0] == titles[1]


def test_a_comparison_has_a_dot_for_each_seed_and_a_stroke_at_their_mean():
    scores = {("one", "merge"): [45.0], ("one", "gru"): [40.0, 44.0], ("two", "merge"): [46.0]}
    groups = {key: [{"CIDEr": value} for value in values] for key, values in scores.items()}
    figure = plots.comparison(groups, ["CIDEr"])
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["merge", "gru"]
    drawn = [(line.get_marker(), list(line.get_xdata())) for line in axis.lines]
    assert drawn == [("o", [45]), ("|", [45]), ("o", [40, 44]), ("|", [42]), ("o", [46]), ("|", [46])]
    places = [line.get_ydata()[0] for line in axis.lines]
    assert places[0] == places[1] < places[4] == places[5] < places[2] == places[3]
    assert axis.lines[0].get_color() == axis.lines[2].get_color() != axis.lines[4].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_a_beam_tree_shows_each_candidate_with_its_probability_and_boxes_what_is_kept():
    half, quarter = np.log(0.5), np.log(0.25)
    steps = [
        [(half, ["a"]), (quarter, ["the"]), (np.log(0.1), ["one"])],
        [(half + quarter, ["a", "dog"]), (half + half + quarter, ["the", "<end>"]), (half - 9, ["a", "cat"])],
        [(half + quarter, ["a", "dog", "<end>"]), (half - 9, ["a", "cat", "runs"])],
    ]
    [axis] = plots.beam_tree(steps, beam=2).axes
    labels = [text for text in axis.texts if not text.get_text().startswith("\N{MULTIPLICATION SIGN}")]
    assert [text.get_text() for text in labels] == (
        ["<start>", "a", "the", "one", "dog", "<end>", "cat", "<end>", "runs"]
    )
    boxed = [text.get_text() for text in labels if text.get_bbox_patch()]
    assert boxed == ["<start>", "a", "the", "dog", "<end>", "cat", "<end>", "runs"]
    probabilities = [text.get_text() for text in axis.texts if text not in labels]
    times = "\N{MULTIPLICATION SIGN}"
    assert probabilities[:4] == [
        f"{times} 0.50 = 0.500",
        f"{times} 0.25 = 0.250",
        f"{times} 0.10",
        f"{times} 0.25 = 0.125",
    ]
    assert len(axis.lines) == 8  # a branch to each candidate


def test_of_one_or_two_photos_the_gallery_shows_all(workspace):
    names = workspace.image_names()[:2]
    values = {measure: np.array([1.0, 2.0]) for measure in ("BLEU-1", "CIDEr")}
    figure = plots.gallery(
        workspace.images,
        Scores({}, values, names, "PTB"),
        dict.fromkeys(names, "a caption"),
        {name: ["a reference"] for name in names},
    )
    assert [axis.get_title() for axis in figure.axes] == ["all: CIDEr 2", "all: CIDEr 1"]


def test_whole_epochs_are_on_the_axis():
    history = [{"epoch": n, "loss": 3.0, "val_loss": 3.0, "val_cider": 1.0} for n in (1, 2, 3, 4)]
    for figure in (plots.losses(history), plots.stages({"one": history})):
        assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


@pytest.mark.parametrize("captions", [1, 2, 257, 258, 513, 514, 769, 770])
def test_the_teacher_forcing_table_has_the_captions_of_a_small_batch(captions, tokenizer):
    train = {f"{n}.jpg": ["w01 w02"] for n in range(captions)}
    size = TrainSettings.for_captions(captions).batch_size
    for (_, inputs), targets, _ in CaptionBatches(train, np.zeros((captions, 2), np.float32), tokenizer, size):
        (axis,) = plots.teacher_forcing_table(inputs, targets, tokenizer).axes
        assert len(axis.texts) == 2 * 3 * min(3, len(inputs))
        plots.plt.close("all")


@pytest.mark.parametrize("text", ["$5 #1 was $6_50", "a $ alone", "costs $1^ and $2_ {"])
def test_dollars_are_money_and_no_formula(workspace, text):
    name = workspace.image_names()[0]
    caption = replace(CAPTION, text=text)
    figures = [
        plots.photos(workspace.images, {name: [text]}),
        plots.word_probabilities(workspace.images / name, caption),
    ]
    for figure in figures:
        figure.canvas.draw()
    assert texts(figures[0].axes[0]) == [text]
    assert figures[1].get_suptitle().startswith(text)

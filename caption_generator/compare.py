"""Every system on equal terms: `python -m caption_generator.compare`.

For each encoder, each seed and each kind of system the decoder is trained, on features that are made once, for the same
few epochs, over which the learning rate falls to 0. Its best epoch captions the dev images with beam 3, and these are
scored. A finished run is a file of its own below `models/compare/`, so that an interrupted comparison goes on where it
was, and several commands can share the work, one for each encoder. What all of them found is collected in
`models/compare/comparison.json` and printed as a table of dev scores, mean and standard deviation over the seeds.
`CAPTION_WORKSPACE` and `CAPTION_OUTPUTS` say where the dataset is and where results go.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from caption_generator.captions import Dataset, captions_fingerprint, prepare, subset
from caption_generator.checkpoint import load_checkpoint, load_encoder
from caption_generator.common.console import quiet_at_ctrl_c
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest, replacing, save_json_rows
from caption_generator.compatibility import check_captions
from caption_generator.encoders import BUNDLED, ENCODERS, check_grid
from caption_generator.evaluate import has_java, score
from caption_generator.features import Features, extract_features
from caption_generator.search import BeamSearch, caption_features
from caption_generator.systems import KINDS, System
from caption_generator.tokenizer import fit_tokenizer
from caption_generator.train import TrainSettings, train_decoder
from caption_generator.workspace import ROOT, Workspace, announce, find_workspace

SETTINGS = TrainSettings(epochs=4, batch_size=64, cosine=True)
BEAM = 3
SEEDS = (0, 1, 2)
MEASURES = ("BLEU-4", "METEOR", "CIDEr")


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        kind: of the system.
        encoder: the encoder that made the features.
        seed: of the run.
        parameters: of the decoder.
        seconds: the median time of an epoch; None if all were done in an earlier run.
        best_epoch: the one with the least dev loss, from 1.
        val_loss: that, in nats a word.
        scores: of the dev captions, by measure, in per cent.
        word_vectors: a sentence about the coverage of the pretrained vectors; empty if there are none.
        settings: a fingerprint of all its settings and data.
        captions: dev image to caption.
    """

    kind: str
    encoder: str
    seed: int
    parameters: int
    seconds: float | None
    best_epoch: int
    val_loss: float
    scores: dict[str, float]
    word_vectors: str = ""
    settings: str = ""
    captions: dict[str, str] = field(default_factory=dict)


class EpochTimer(keras.callbacks.Callback):
    """How long each epoch took, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)

    def median(self) -> float | None:
        """None after a run whose epochs were all finished before."""
        return float(np.median(self.seconds)) if self.seconds else None


def run_system(
    system: System,
    features: Features,
    data: Dataset,
    workspace: Workspace,
    settings: TrainSettings = SETTINGS,
) -> Outcome:
    """Train one system, caption the dev images and score them; or read the outcome, if the same was run before.

    Args:
        system: what to run; the encoder of the features takes the place of its own.
        features: of all images, in the pooling that the system reads.
        data: the captions.
        workspace: where its checkpoints go and its word vectors come from.
        settings: how to train.

    Raises:
        CaptionError: as `train_decoder` and `load_word_vectors`.
    """
    encoder = features.encoder
    system = replace(system, encoder=encoder.name)
    tokenizer = fit_tokenizer(data.train, system.min_count)
    vectors = system.load_vectors(workspace, tokenizer)
    known = [asdict(system), encoder.to_dict(), vectors and vectors.fingerprint, asdict(settings), BEAM]
    texts = [captions_fingerprint(part) for part in (data.train, data.dev, subset(data.references, data.dev))]
    run = digest(json.dumps([known, texts, has_java()]))
    folder = workspace.models / "compare" / f"{encoder.name}-{encoder.weights}" / system.kind / str(settings.seed)
    trained, done = folder / "trained.json", folder / "outcome.json"
    if (outcome := read_outcome(done)) and outcome.settings == run:
        return outcome
    known_run = read_json(trained)
    if known_run.get("settings") != run:
        timer = EpochTimer()
        train_decoder(data, features, tokenizer, folder, system, settings, vectors, callbacks=[timer])
        known_run = {"settings": run, "seconds": timer.median()}
        write_json(trained, known_run)
    best = load_checkpoint(folder / "model_best.h5")
    names = list(data.dev)
    found = caption_features(BeamSearch(best.decoder, tokenizer, BEAM), features.matrix(names))
    captions = {name: caption.text for name, caption in zip(names, found, strict=True)}
    outcome = Outcome(
        system.kind,
        encoder.name,
        settings.seed,
        best.decoder.model.count_params(),
        known_run.get("seconds"),
        best.training["epoch"],
        best.training["val_loss"],
        {measure: round(value, 2) for measure, value in score(captions, data.references).corpus.items()},
        str(vectors or ""),
        run,
        captions,
    )
    write_json(done, asdict(outcome))
    return outcome


def write_json(path: Path, value: object) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value))


def read_json(path: Path) -> dict[str, Any]:
    """The object that `write_json` wrote; an empty one where there is no such file, or a damaged one."""
    with suppress(OSError, ValueError):
        if isinstance(found := json.loads(path.read_text()), dict):
            return found
    return {}


def extract_all(encoder: str, pooling: str, workspace: Workspace, names: Sequence[str]) -> Features:
    """Features of one encoder for a comparison, which leaves the workspace's `features.p` alone.

    Raises:
        CaptionError: as `extract_features`, or a photo cannot be read: a comparison is of all of them or of none.
    """
    built = load_encoder(encoder, pooling=pooling)
    # A folder for each encoder: it has one run at a time, and commands for several encoders extract at once.
    path = workspace.models / "compare" / f"features_{encoder}" / f"{pooling}.p"
    features = extract_features(built, workspace.images, names, path)
    if features.errors:
        raise CaptionError(features.errors[0])
    return features


def run(workspace: Workspace, encoders: Sequence[str], kinds: Sequence[str], seeds: Sequence[int]) -> list[Outcome]:
    """All runs of all these, with what earlier commands ran.

    Raises:
        CaptionError: as `run_system`; what is missing altogether is said before anything is trained.
    """
    data = prepare(workspace)
    check_captions(data.train, data.dev)
    for system in (KINDS[kind] for kind in kinds if KINDS[kind].pretrained):
        workspace.word_vectors(system.decoder.embedding_size)
    if any(KINDS[kind].pooling == "grid" for kind in kinds):
        for encoder in encoders:
            check_grid(encoder)
    names = [*data.train, *data.dev]
    for encoder in encoders:
        poolings = dict.fromkeys(KINDS[kind].pooling for kind in kinds)
        features = {pooling: extract_all(encoder, pooling, workspace, names) for pooling in poolings}
        for seed in seeds:
            for system in (KINDS[kind] for kind in kinds):
                print(f"{encoder}, {system.kind}, seed {seed}", file=sys.stderr)
                run_system(system, features[system.pooling], data, workspace, replace(SETTINGS, seed=seed))
    found = map(read_outcome, sorted((workspace.models / "compare").glob("*/*/*/outcome.json")))
    return [outcome for outcome in found if outcome]


def read_outcome(path: Path) -> Outcome | None:
    """What a run left, unless it has not ended, or was of a kind that there no longer is."""
    with suppress(TypeError):
        outcome = Outcome(**read_json(path))
        return outcome if outcome.kind in KINDS else None
    return None


def save_outcomes(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write all of them, without their captions."""
    save_json_rows(path, (asdict(replace(outcome, captions={})) for outcome in outcomes))


def load_outcomes(path: Path = ROOT / "models" / "comparison.json") -> list[Outcome]:
    """What `save_outcomes` wrote: by itself, the comparison on Flickr8k that comes with the repository."""
    return [Outcome(**row) for row in json.loads(Path(path).read_text())]


def by_kind(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """The runs of each (encoder, kind), in the order of the table of systems."""
    order = list(KINDS)
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda run: (run.encoder, order.index(run.kind), run.seed)):
        groups.setdefault((outcome.encoder, outcome.kind), []).append(outcome)
    return groups


def scores_by_kind(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], list[dict[str, float]]]:
    """The scores of the runs of each (encoder, kind), for `plots.comparison`."""
    return {key: [run.scores for run in runs] for key, runs in by_kind(outcomes).items()}


def table(outcomes: Iterable[Outcome]) -> str:
    """In Markdown: parameters and dev scores of each kind with each encoder, mean ± standard deviation over seeds."""
    lines = [
        f"| encoder | kind | parameters | seeds | {' | '.join(MEASURES)} |",
        f"|---|---|---|---|{'---|' * len(MEASURES)}",
    ]
    for (encoder, kind), runs in by_kind(outcomes).items():
        cells = [
            encoder,
            kind,
            f"{runs[0].parameters / 1e6:.1f} M",
            ", ".join(str(run.seed) for run in runs),
            *(mean_and_spread([run.scores.get(measure, np.nan) for run in runs]) for measure in MEASURES),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_and_spread(values: Sequence[float]) -> str:
    """`22.1 ± 0.3`: the mean, and the standard deviation of a sample where there is more than one value."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def seed(text: str) -> int:
    """A whole number from 0 to 2^32 - 1, as NumPy wants it, for `add_argument(type=seed)`."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to {2**32 - 1}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["mobilenetv2", "mobilenet"], choices=[*ENCODERS, BUNDLED])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seeds", nargs="+", type=seed, default=SEEDS)
    options = parser.parse_args()
    try:
        workspace = find_workspace()
        print(announce(workspace), file=sys.stderr)
        outcomes = run(workspace, options.encoders, options.kinds, options.seeds)
        save_outcomes(outcomes, workspace.models / "compare" / "comparison.json")
    except CaptionError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(quiet_at_ctrl_c(main))

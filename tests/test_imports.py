"""Imports run one way: a module imports only what stands above it in `LAYERS`, and some never load TensorFlow."""

import ast
import subprocess
import sys
from collections.abc import Iterator

from caption_generator.workspace import ROOT

PACKAGE = ROOT / "caption_generator"
# The modules of a line do not import one another.
LAYERS = """
common.errors common.pictures common.numbers common.hdf5_heaps
common.console common.files common.keras_settings
workspace
common.pickles common.hdf5 caption_files images download
torch_file

captions tokenizer imagenet_words
word_vectors objects search inference.out_of_distribution
evaluate inference.word_detector inference.constrained_search
inference.imagenet_classifier
inference.exported

efficientnet_lite
attention encoders
decoders batches inference.folding
systems features
checkpoint
compatibility training_loop
train

inference.conversion inference.keras_engine inference.litert_engine
inference.engine inference.export
captioner
plots compare

finetuning.averaging finetuning.rewards finetuning.grids finetuning.late_layers finetuning.forgetting
finetuning.finetune
finetuning.self_critical
finetuning.recipe

legacy.pickles
legacy.features
legacy.merge_model
legacy.__main__

cluster.session cluster.storage cluster.tasks
cluster.sources cluster.table
cluster.job
"""
# Work on text, pictures and captions starts at once. TensorFlow takes seconds to load.
WITHOUT_TENSORFLOW = """
common.console common.errors common.files common.pickles common.pictures
workspace captions caption_files images torch_file tokenizer word_vectors search objects evaluate captioner plots
inference.engine inference.out_of_distribution inference.word_detector inference.imagenet_classifier
legacy.pickles legacy.__main__
"""
# The functions that import, and why.
IMPORTING_FUNCTIONS = {
    "common.console load_tensorflow": "its messages at the start are dropped",
    "images _formats": "plugins of Pillow that may not be installed",
    "inference.engine load_engine": "a model that was exported needs no TensorFlow",
    "inference.export export_checkpoint": "as above",
    "legacy.__main__ convert": "a tokenizer alone needs no TensorFlow",
    "cluster.session start_spark": "pyspark may not be installed",
    "cluster.tasks sent_file": "as above",
    "cluster.tasks load": "runs on the workers of a cluster",
    "cluster.job caption_task": "only a task with a checkpoint needs TensorFlow",
    "cluster.job write_features": "as above",
}
PLACES = {module: line for line, modules in enumerate(LAYERS.splitlines()) for module in modules.split()}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name within it."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    names = (".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files)
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, files, strict=True)}


def imported(node: ast.AST) -> Iterator[str]:
    """The modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        named = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        named = []
    for name in named:
        package, _, inner = name.partition(".")
        if package == "caption_generator":
            yield inner if inner in PLACES else inner.rpartition(".")[0]  # of `module.name`, the module


def test_every_module_has_one_place():
    assert len(LAYERS.split()) == len(set(LAYERS.split()))
    assert set(PLACES) == set(modules()), "give each module a place in LAYERS"


def test_imports_run_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        for other in imported(node)
        if other and PLACES[other] >= PLACES[name]
    ]
    assert not wrong


def test_packages_import_nothing_of_their_own():
    """So the first import of a module loads what it names, and no more."""
    for path in PACKAGE.rglob("__init__.py"):
        assert not [name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)], path


def test_only_few_functions_import():
    found = {
        f"{name} {function.name}"
        for name, tree in modules().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert found == set(IMPORTING_FUNCTIONS)


def test_what_needs_no_network_does_not_load_tensorflow():
    code = f"""
import importlib, sys
for name in {WITHOUT_TENSORFLOW.split()}:
    importlib.import_module("caption_generator." + name)
    loaded = {{"tensorflow", "keras", "h5py", "torch"}} & set(sys.modules)
    assert not loaded, f"{{name}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lists_name_modules_that_exist():
    assert set(WITHOUT_TENSORFLOW.split()) <= set(PLACES)
    assert {name.split()[0] for name in IMPORTING_FUNCTIONS} <= set(PLACES)

#!/usr/bin/env bash
# Every check, in a copy, so that nothing in the checkout changes: ruff, pytest, and all notebooks on the sample, whose
# outputs must come out as they are saved. `make test` calls this with PYTHON set to its virtual environment's.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
copy=$scratch/checkout
mkdir "$copy"
tar --exclude=./.git --exclude=./.venv --exclude=__pycache__ --exclude='./Flickr8k_Dataset/*.jpg' \
    --exclude=./models/grids --exclude=./models/settled --exclude=./models/finetuned --exclude='./models/restarted_*' \
    --exclude=./models/self_critical --exclude=./models/compare \
    --exclude=./sample/models --exclude=./sample/descriptions.txt --exclude=./sample/features.p \
    --exclude=./sample/tokenizer.p -cf - . | tar -xf - -C "$copy"
[ -e ../shared ] && ln -s "$(realpath ../shared)" "$scratch/shared" # real data, for the tests that use it
cd "$copy"
unset CAPTION_WORKSPACE CAPTION_OUTPUTS CAPTION_SYSTEM

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -c "import matplotlib.pyplot" # builds its font cache, which it reports, outside of the notebooks
"$PYTHON" -m pytest
lacks=$("$PYTHON" -c "from caption_generator.cluster.session import missing; print(missing())")
[ -z "$lacks" ] || echo "Notebook 9 is left out: $lacks"
CAPTION_WORKSPACE=sample PYTHONPATH="$copy" "$PYTHON" -m pytest --nbval --nbval-current-env \
    --nbval-sanitize-with notebooks/sanitize.cfg ${lacks:+--ignore=notebooks/9_past_one_machine.ipynb} notebooks

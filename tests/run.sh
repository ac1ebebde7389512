#!/usr/bin/env bash
# The checks, in a copy, so that nothing in the checkout changes: ruff, mypy, pytest, and all notebooks on the sample,
# whose outputs must come out as they are saved. With --all, the slow tests too. `make test` calls this with PYTHON set to
# its virtual environment's. CAPTION_SHARED may name a folder of real data for the tests that use it.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
chosen=(-m "not slow")
[ "${1:-}" = --all ] && chosen=(-m "")

scratch=$(mktemp -d)
notebooks=
stop() {
    [ -z "$notebooks" ] || kill "$notebooks" 2>/dev/null || true
    rm -rf "$scratch"
}
trap stop EXIT
copy=$scratch/checkout
mkdir "$copy"
tar --exclude=./.git --exclude=./.venv --exclude=__pycache__ --exclude='./*.egg-info' \
    --exclude='./Flickr8k_Dataset/*.jpg' \
    --exclude=./models/grids --exclude=./models/settled --exclude=./models/finetuned --exclude='./models/restarted_*' \
    --exclude=./models/self_critical --exclude=./models/compare \
    --exclude=./sample/models --exclude=./sample/descriptions.txt --exclude=./sample/features.p \
    --exclude=./sample/tokenizer.p -cf - . | tar -xf - -C "$copy"
cd "$copy"
export PYTHONPATH=$copy # before the checkout, which is installed
unset CAPTION_WORKSPACE CAPTION_OUTPUTS CAPTION_SYSTEM

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -c "import matplotlib.pyplot" # builds its font cache, which it reports, outside of the notebooks

# A notebook reads what the one before it wrote, so they run one after the other, beside the tests.
lacks=$("$PYTHON" -c "from caption_generator.cluster.session import missing; print(missing())")
[ -z "$lacks" ] || echo "Notebook 9 is left out: $lacks"
run_notebooks() {
    CAPTION_WORKSPACE=sample TF_NUM_INTRAOP_THREADS=1 "$PYTHON" -m pytest \
        --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg --durations=10 \
        ${lacks:+--ignore=notebooks/9_past_one_machine.ipynb} notebooks
}
run_notebooks >"$scratch/notebooks.log" 2>&1 &
notebooks=$!
failed=0
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations=20 "${chosen[@]}" || failed=1
wait "$notebooks" || failed=1
notebooks=
cat "$scratch/notebooks.log"
exit $failed

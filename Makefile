# make caption            a new virtual environment, and the caption of an example photo
# make caption IMAGE=x.jpg    ... of your own photo
# make test               every check: ruff, pytest, and all notebooks on the sample
# make notebooks          run the notebooks on the sample and save their outputs (for developers)

PYTHON ?= python3
IMAGE ?= examples/photographer.jpg
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: caption test notebooks clean

caption: $(VENV)/runtime
	@$(BIN)/python testing_caption_generator.py -i "$(IMAGE)"

test: $(VENV)/tests
	@PYTHON=$(abspath $(BIN))/python tests/run.sh

notebooks: $(VENV)/tests
	CAPTION_WORKSPACE=sample $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False \
		--NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
		--CoalesceStreamsPreprocessor.enabled=True notebooks/*.ipynb

clean:
	rm -rf $(VENV)

$(VENV)/runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/tests: $(VENV)/runtime tests/requirements.txt
	$(BIN)/pip install --quiet --requirement tests/requirements.txt
	@touch $@

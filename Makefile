# make caption            a new virtual environment, and the caption of an example photo
# make caption IMAGE=x.jpg    ... of your own photo
# make test               the checks: ruff, mypy, pytest, and all notebooks on the sample
# make test-all           the same with the tests that take long and seldom fail
# make web                serve the page and the API on this machine (PORT=8000)
# make streamlit          ... the small page, made with Streamlit (PORT=8501)
# make notebooks          run the notebooks on the sample and save their outputs (for developers)

PYTHON ?= python3
IMAGE ?= examples/cow.jpg
VENV ?= .venv
BIN = $(VENV)/bin

# `make caption my.jpg` would caption the example, and then look for a rule that makes my.jpg.
ifeq ($(firstword $(MAKECMDGOALS)),caption)
ifneq ($(words $(MAKECMDGOALS)),1)
$(error write: make caption IMAGE=$(word 2,$(MAKECMDGOALS)))
endif
endif

.PHONY: caption test test-all notebooks clean

caption: $(VENV)/caption
	@$(BIN)/python testing_caption_generator.py -i "$(IMAGE)"

test: $(VENV)/tests
	@PYTHON=$(abspath $(BIN))/python tests/run.sh

test-all: $(VENV)/tests
	@PYTHON=$(abspath $(BIN))/python tests/run.sh --all

notebooks: $(VENV)/tests
	CAPTION_WORKSPACE=sample PYTHONPATH=$(CURDIR) $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False \
		--NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
		--CoalesceStreamsPreprocessor.enabled=True notebooks/*.ipynb

clean:
	rm -rf $(VENV)

$(VENV)/caption: requirements-caption.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements-caption.txt
	@touch $@

$(VENV)/runtime: $(VENV)/caption requirements.txt pyproject.toml
	$(BIN)/pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/tests: $(VENV)/runtime $(VENV)/web tests/requirements.txt tests/web/requirements.txt requirements-spark.txt
	$(BIN)/pip install --quiet --requirement tests/requirements.txt --requirement tests/web/requirements.txt
	! command -v java >/dev/null || $(BIN)/pip install --quiet --requirement requirements-spark.txt
	@touch $@

# The pages
.PHONY: web streamlit

web: $(VENV)/web
	@export WEBAPP_HTTPS=0 WEBAPP_SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))')" \
		&& $(BIN)/python webapp/manage.py collectstatic --noinput --verbosity 0 \
		&& MALLOC_ARENA_MAX=2 exec $(BIN)/gunicorn --config webapp/gunicorn.conf.py webapp.wsgi

streamlit: $(VENV)/web
	@echo "Captions at http://127.0.0.1:$${PORT:-8501}"
	@exec $(BIN)/streamlit run streamlit_app.py --server.port $${PORT:-8501}

$(VENV)/web: $(VENV)/caption requirements-web.txt
	$(BIN)/pip install --quiet --requirement requirements-web.txt
	@touch $@

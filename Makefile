# `make demo` and `make test` do all their own set-up; both can be run again. The demo pre-trains, and ends with what
# that is worth downstream: three fine-tunings each from its weights and from random ones.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
VOCAB := $(DEMO)/vocab.txt

.PHONY: demo test test-long test-beam lint wheel clean

demo: $(VENV)/ready
	@test -f $(VOCAB) || $(BIN)/electra vocab --gin.CORPUS='"embedded"' --gin.TOKENIZER='"$(VOCAB)"' --gin.VOCAB_SIZE=8192
	$(BIN)/electra pretrain --gin_file=gin/runs/demo.gin --gin.TOKENIZER='"$(VOCAB)"' --gin.MODEL_DIR='"$(DEMO)"'
	$(BIN)/electra finetune --gin_file=gin/runs/demo_finetune.gin --gin.INIT_FROM='"$(DEMO)"' \
		--gin.MODEL_DIR='"$(DEMO)/finetune/pretrained"'
	$(BIN)/electra finetune --gin_file=gin/models/tiny.gin --gin_file=gin/runs/demo_finetune.gin \
		--gin.INIT_FROM=None --gin.TOKENIZER='"$(VOCAB)"' --gin.MODEL_DIR='"$(DEMO)/finetune/random"'
	$(BIN)/electra evaluate --gin.MODEL_DIR='"$(DEMO)"'

test: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

# What takes many minutes, such as training that is killed at twenty random moments.
test-long: $(VENV)/ready
	$(BIN)/python -m pytest -m long -s

# Beam wants older packages than the rest of the project is tested with.
test-beam: $(VENV)-beam/ready
	$(VENV)-beam/bin/python -m pytest tests/tasks/pretraining/test_beam.py

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

wheel: $(VENV)/ready
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

$(VENV)-beam/ready: pyproject.toml constraints-beam.txt
	test -x $(VENV)-beam/bin/python || $(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --editable '.[beam]' pytest --constraint constraints-beam.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-beam build dist *.egg-info

# Made again whenever what is installed may have changed.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

# On a fresh clone every target first builds .venv, with what it needs; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed, by which Python: `make test PYTHON=python3.12` builds .venv anew.
RUNS := $(VENV)/.runs-$(notdir $(PYTHON))
PAGE := $(VENV)/.page-$(notdir $(PYTHON))
TESTS := $(VENV)/.tests-$(notdir $(PYTHON))
DOCS := $(VENV)/.docs-$(notdir $(PYTHON))
RUNTIME := $(lastword $(sort $(wildcard onnxruntime-web-*.tgz)))
# Those that are tested together; CONTRIBUTING.md has what gives the oldest that are allowed.
VERSIONS := --constraint constraints.txt
PIP := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(VERSIONS)

.DEFAULT_GOAL := help
.PHONY: help install demo explore docs test coverage torture fuzz lint format typecheck bench pictures bundle clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

install: $(TESTS) ## build .venv with everything that zsteer and its tests need

$(RUNS): pyproject.toml constraints.txt
	@test -e $@ || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(PIP) --editable .
	@touch $@

$(PAGE): $(RUNS)
	$(PIP) --editable '.[explore]'
	@touch $@

$(TESTS): $(RUNS)
	$(PIP) --editable '.[dev]'
	@touch $@

$(DOCS): $(RUNS)
	$(PIP) --editable '.[docs]'
	@touch $@

demo: $(RUNS) ## steer eight faces to a smile, by the default and by a plain gradient
	$(BIN)/python scripts/steer.py
	$(BIN)/python scripts/steer.py method=tutorial penalty_weight=0
	$(BIN)/python examples/demo.py
	@echo "Picture:     outputs/demo.png, by a plain gradient and by the default; more in outputs/steer/*/steering.png"
	@echo "TensorBoard: $(BIN)/tensorboard --logdir outputs --samples_per_plugin images=1000"
	@echo "Sliders:     make explore"

explore: $(PAGE) ## open a live page: sliders that steer faces
	$(BIN)/python scripts/explore.py

# Its 15 MB are not committed: it is made where `npm pack onnxruntime-web` has left its file.
docs/demo.html: $(PAGE) $(RUNTIME) $(wildcard src/zsteer/pages/*.* src/zsteer/bundle/*.*)
	$(BIN)/python scripts/export.py runtime=$(RUNTIME) page=$@ overwrite=true

docs: $(DOCS) $(if $(RUNTIME),docs/demo.html) ## build the pages of docs into dist/site, and check their links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Pages: dist/site/index.html"

# Several processes of one thread each: tests are small, and many of them wait for processes of their own.
SUITE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Where `--torture` runs what the suite otherwise leaves out.
TORTURED := tests/torture tests/app/test_reproduction.py tests/sweeps/test_processes.py tests/training/test_distributed.py

test: $(TESTS) ## run the whole suite
	$(SUITE)

coverage: $(TESTS) ## run the whole suite, and say which lines it does not reach
	$(SUITE) --cov

torture: $(TESTS) ## kill every stage, mutate every file that is read, ask for all that can be asked for; `make test` does a minute of it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --torture --numprocesses auto --maxprocesses 4 $(TORTURED)

fuzz: $(TESTS) ## fuzz every reader for ten minutes, two at a time (over an hour), and keep in tests/torture/corpus what it found
	$(PIP) --group fuzz
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m torture.fuzz

lint: $(TESTS) ## check style, and that imports point one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(TESTS) ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(TESTS) ## check types
	$(BIN)/basedpyright

bench: $(TESTS) ## compare speeds, each with its alternative in the same process
	$(BIN)/python benchmarks/steering.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/training.py

pictures: $(TESTS) ## draw the pictures of faces and of pages again
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m pytest --pictures docs -m browser tests/explore/test_live_page.py tests/pages/test_page_in_browser.py

bundle: $(RUNS) ## train the bundled networks again (about fourteen hours on two cores)
	rm -rf outputs/bundle
	$(BIN)/python scripts/train_gan.py experiment=bundle_generator hydra.run.dir=outputs/bundle/generator
	$(BIN)/python scripts/train_gan.py experiment=bundle_tutorial hydra.run.dir=outputs/bundle/tutorial
	$(BIN)/python scripts/train_gan.py experiment=bundle_tutorial_longer hydra.run.dir=outputs/bundle/tutorial_longer \
		generator.checkpoint=outputs/bundle/tutorial/generator.safetensors
	$(BIN)/python scripts/train_gan.py experiment=bundle_tutorial_sharper hydra.run.dir=outputs/bundle/tutorial_sharper \
		generator.checkpoint=outputs/bundle/tutorial_longer/generator.safetensors
	for name in classifier judge second_judge regressor judge_regressor; do \
		$(BIN)/python scripts/train_classifier.py experiment=bundle_$$name hydra.run.dir=outputs/bundle/$$name || exit 1; \
	done
	for name in generator tutorial_sharper; do \
		$(BIN)/python scripts/evaluate.py what=generator hydra.run.dir=outputs/bundle/$$name/rates \
			generator=outputs/bundle/$$name judge.checkpoint=outputs/bundle/judge/classifier.safetensors || exit 1; \
	done
	$(BIN)/python -m zsteer.app.bundling outputs/bundle

clean: ## remove what make built
	rm -rf $(VENV) dist .pytest_cache .ruff_cache

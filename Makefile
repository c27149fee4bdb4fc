# One command to see it (make demo), one to trust it (make test). Both set up what they need in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
MEMBERS ?= 2000
SEEDS ?= 5000
FIRST_SEED ?= 1
HOSTILE ?= 100000
FUZZ_S ?= 60
WORKERS ?= 2

.PHONY: demo test slow check proto proto-check bench soak simulation mutants crash hostile fuzz lock clean

$(READY): requirements.lock requirements-bootstrap.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock requirements-bootstrap.lock
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## a whole tree on this machine; MEMBERS=n, KEEP=1
	@$(BIN)/dongbo demo --members $(MEMBERS) $(if $(KEEP),--keep)

test: $(READY)  ## WORKERS=n processes side by side; each takes whole files
	@$(BIN)/python -m pytest -q -m "not slow and not alone" -n $(WORKERS) --dist loadscope --no-loadscope-reorder
	@$(BIN)/python -m pytest -q -m "alone and not slow"

check: $(READY) proto-check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_layers.py tests/test_repository.py

PROTOS := $(wildcard proto/dongbo/v1/*.proto)
PROTOC = $(BIN)/python -m grpc_tools.protoc -I proto $(PROTOS)

proto: $(READY)  ## regenerate the code that is made from the .proto files
	@$(PROTOC) --python_out=proto --pyi_out=proto

proto-check: $(READY)  ## generated code is what the .proto files say; buf where node is present
	@rm -rf .drift && mkdir .drift && $(PROTOC) --python_out=.drift --pyi_out=.drift
	@for f in $$(cd .drift && find . -type f); do cmp -s .drift/$$f proto/$$f || { echo "proto/$$f is stale: run 'make proto'"; rm -rf .drift; exit 1; }; done; rm -rf .drift
	@$(BIN)/python tests/buf.py

bench: $(READY)
	@$(BIN)/python -m bench

soak: slow simulation mutants crash hostile fuzz  ## all that looks for long (docs/testing.md); SEEDS=n FIRST_SEED=m

slow: $(READY)  ## the tests that make test leaves out because they take long
	@$(BIN)/python -m pytest -q -m slow

simulation: $(READY)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first-seed $(FIRST_SEED)

mutants: $(READY)  ## break the product in each known way: every way must be noticed
	@$(BIN)/python -m tests.simulation --mutants --seeds 200

crash: $(READY)  ## kill real processes at every statement and system call; cut the power; fill the disk
	@$(BIN)/python -m tests.crash
	@$(BIN)/python -m tests.crash --mutants

hostile: $(READY)
	@$(BIN)/python -m tests.hostile --count $(HOSTILE) --seed $(FIRST_SEED)

fuzz: $(READY)  ## the same, guided by coverage; needs atheris, which nothing else does
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@$(BIN)/python -m tests.hostile.guided --seconds $(FUZZ_S)

lock: $(READY)  ## pin the newest versions that pyproject.toml admits
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev pyproject.toml -o requirements.lock
	@echo uv | UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header - -o requirements-bootstrap.lock

clean:
	@rm -rf $(VENV) .demo .bench .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis

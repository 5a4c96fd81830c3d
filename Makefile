# Two commands: `make demo` and `make test`. PIP_ARGS lets you choose another source of wheels, for instance
# make demo PIP_ARGS="--find-links /media/wheels --no-index"
PYTHON ?= python3.11
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PROJECT := setup.cfg pyproject.toml constraints.txt Makefile

.PHONY: demo test test-slow test-gpu test-slurm bench bench-gpu system clean

demo: $(VENV)/.core
	rm -rf $(DEMO)
	$(BIN)/flowkit demo --out $(DEMO)

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Starts a SLURM of its own and ends it again: sudo apt-get install -y slurm-wlm munge
test-slurm: $(VENV)/.dev
	$(BIN)/python -m pytest -m slurm

# On a machine with an NVIDIA GPU; for a driver that runs CUDA 12 at most, see docs/gpu.md.
test-gpu: $(VENV)/.gpu
	$(BIN)/python -m pytest -m gpu

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/tvl1_cpu.py --out benchmarks/results/tvl1_cpu.json
	$(BIN)/python benchmarks/accuracy.py --out benchmarks/results/accuracy.json
	$(BIN)/python benchmarks/alignment_neutral.py --out benchmarks/results/alignment_neutral.json
	$(BIN)/python benchmarks/spotting.py --out benchmarks/results/spotting.json
	$(BIN)/python benchmarks/throughput.py --out benchmarks/results/throughput.json
	$(BIN)/python benchmarks/manifest_scale.py --out benchmarks/results/manifest_scale.json
	$(BIN)/python benchmarks/scale.py --out benchmarks/results/scale.json
	$(BIN)/python benchmarks/faults.py --out benchmarks/results/faults.json
	$(BIN)/flowkit bench --out benchmarks/results/bench_cpu.json

bench-gpu: $(VENV)/.gpu
	$(BIN)/python benchmarks/gpu.py --out benchmarks/results/gpu.json

# Before anything is downloaded: says what is missing on this machine, and the line that installs it.
system:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "system: $(PYTHON) must be installed; got none. Install it: sudo apt-get install -y python3.11 python3.11-venv" >&2; \
	  echo "        or name another one, 3.11 or newer: make demo PYTHON=python3.12" >&2; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "system: Python must be 3.11 or newer; got $$($(PYTHON) --version). Name another one: make PYTHON=python3.11 ..." >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "system: $(PYTHON) must bring venv; got none. Install it: sudo apt-get install -y python3.11-venv" >&2; exit 3; }
	@$(PYTHON) flowkit/system.py

$(VENV)/.core: $(PROJECT) | system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(PROJECT) | system
	@command -v g++ >/dev/null || { \
	  echo "system: the tests must find g++, with which they run the CUDA kernels on the CPU; got none. Install it: sudo apt-get install -y g++" >&2; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.core

$(VENV)/.gpu: $(VENV)/.dev
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev,cuda13]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

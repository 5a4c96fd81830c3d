# Two commands: `make demo` and `make test`. PIP_ARGS lets you choose another source of wheels, for instance
# make demo PIP_ARGS="--find-links /media/wheels --no-index"
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
PROJECT := setup.cfg setup.py pyproject.toml constraints.txt Makefile
WHEEL_ARGS ?=

# The first Python that runs. A version manager leaves commands on PATH that exist and start nothing, so each is tried.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; \
  done)
endif

# A Python for NumPy 2.5; a version manager keeps some that are not on PATH.
ifeq ($(origin PYTHON_BARE),undefined)
PYTHON_BARE = $(shell for python in python3.12 python3.13 python3.14 $(HOME)/.pyenv/versions/3.1[234]*/bin/python python3; do \
  $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$python && break; \
  done)
endif

# Seconds that `make test` may take on two idle cores; tests/budget.py fails it at half as much again.
BUDGET := 480
# Three files of tests at a time, on two cores: many tests start processes of their own, and wait for them.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-hours test-wheel test-bare python-bare test-slurm gpu bench system clean

demo: $(VENV)/.core
	rm -rf $(DEMO)
	$(BIN)/flowkit demo --out $(DEMO)

test: $(VENV)/.dev
	began=$$(date +%s) && \
	$(BIN)/ruff check . && \
	$(BIN)/ruff format --check . && \
	$(BIN)/mypy && \
	$(PYTEST) -m "not slow and not hours" --budget $(BUDGET) --began $$began

# What is tried a few times there is tried many times here, and some of what starts many processes only here; CI runs both.
test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# The whole kill matrix; it needs the machine for itself.
test-hours: $(VENV)/.dev
	$(BIN)/python -m pytest -m hours

# The wheel in clean environments, with every Python that is found, the newest and the oldest packages. To record it:
# make test-wheel WHEEL_ARGS="--out benchmarks/results/wheel_matrix.json --page docs/versions.md"
test-wheel: $(VENV)/.dev
	$(BIN)/python benchmarks/wheel_matrix.py --pip-args "$(PIP_ARGS)" $(WHEEL_ARGS)

# Starts a SLURM of its own and ends it again: sudo apt-get install -y slurm-wlm munge
test-slurm: $(VENV)/.dev
	$(BIN)/python -m pytest -m slurm

# On a machine with an NVIDIA GPU: smoke test, speed, where the time goes, all GPU tests. Without a network or a virtual
# environment: bash benchmarks/device.sh. For a driver that runs CUDA 12 at most, see docs/gpu.md.
gpu: $(VENV)/.gpu
	PY=$(BIN)/python bash benchmarks/device.sh

# Emulates a typical GPU machine: another Python, a newer NumPy, no PyAV, mediapipe, contrib OpenCV or dask.
test-bare: $(VENV)/.dev $(VENV)/.bare
	FLOWKIT_BARE_PYTHON=$(CURDIR)/$(VENV)/bare/bin/python FLOWKIT_BARE_WHEELS=$(CURDIR)/$(VENV)/bare/wheels \
	  $(BIN)/python -m pytest tests/project/test_bare_machine.py

python-bare:
	@echo $(PYTHON_BARE)

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/tvl1_cpu.py --out benchmarks/results/tvl1_cpu.json
	$(BIN)/python benchmarks/solver.py --out benchmarks/results/solver.json
	$(BIN)/python benchmarks/solver.py --people tuning --grid --out benchmarks/results/solver-grid.json
	$(BIN)/python benchmarks/accuracy.py --out benchmarks/results/accuracy.json
	$(BIN)/python benchmarks/neighbours.py --out benchmarks/results/neighbours.json
	$(BIN)/python benchmarks/synthetic.py --out benchmarks/results/synthetic.json
	$(BIN)/python benchmarks/alignment_neutral.py --out benchmarks/results/alignment_neutral.json
	$(BIN)/python benchmarks/spotting.py --out benchmarks/results/spotting.json
	$(BIN)/python benchmarks/throughput.py --out benchmarks/results/throughput.json
	$(BIN)/python benchmarks/manifest_scale.py --out benchmarks/results/manifest_scale.json
	$(BIN)/python benchmarks/scale.py --out benchmarks/results/scale.json
	$(BIN)/python benchmarks/faults.py --out benchmarks/results/faults.json
	$(BIN)/flowkit bench --out benchmarks/results/bench_cpu.json

# Before anything is downloaded: says what is missing on this machine, and the line that installs it.
system:
	@test -n "$(PYTHON)" || { \
	  echo "system: python3 and python3.11 to python3.14: none of them runs, is 3.11 or newer, and has venv." >&2; \
	  echo "        Install one: sudo apt-get install -y python3 python3-venv" >&2; \
	  echo "        Or name one: make demo PYTHON=/path/to/python" >&2; exit 3; }
	@$(PYTHON) -c '' || { \
	  echo "system: $(PYTHON): this command does not run. Install it, or name another Python, 3.11 or newer: make demo PYTHON=..." >&2; \
	  exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "system: $(PYTHON): $$($(PYTHON) --version) is too old. Name one that is 3.11 or newer: make demo PYTHON=..." >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "system: $(PYTHON): venv is missing. Install it: sudo apt-get install -y" \
	    "$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 3; }
	@$(PYTHON) flowkit/system_libraries.py

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

# The wheel is what a user would take along to such a machine: a NumPy that numba-cuda can compile with.
$(VENV)/.bare: tests/standin/requirements.txt | system
	@test -n "$(PYTHON_BARE)" || { \
	  echo "system: PYTHON_BARE must be a Python 3.12 or newer, which NumPy 2.5 needs; got none. Name one: make test-bare PYTHON_BARE=..." >&2; \
	  exit 3; }
	rm -rf $(VENV)/bare
	$(PYTHON_BARE) -m venv $(VENV)/bare
	$(VENV)/bare/bin/python -m pip install $(PIP_ARGS) -r tests/standin/requirements.txt
	$(VENV)/bare/bin/python -m pip download $(PIP_ARGS) --no-deps -d $(VENV)/bare/wheels numpy==2.4.6
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

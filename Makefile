# Every target sets itself up: a virtual environment in .venv, filled again only when the package files change.
# Needs Python 3.11 or newer and pip. A C compiler is optional: without one the NumPy entropy coder gives the same bytes, slower.
#   make PYTHON=/path/to/python3.11 PIP_FLAGS=--no-cache-dir test

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet $(PIP_FLAGS)
STAMP := $(VENV)/.remac-installed
C_SOURCES := $(wildcard runtime/setup.py runtime/remac_runtime/csrc/*)
CHECKED := $(wildcard remac calibration export benchmarks tests)
# PyTorch spins at barriers when its threads outnumber the free cores: one thread is as fast on small pictures and never far slower.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup encoder test slow lint types verify-all flight gpu-bundle figures report readme clean

help:
	@echo "make encoder     build the rover encoder into build/rover-m, check it, and encode a sample picture"
	@echo "make flight      write the C99 flight encoder into build/flight"
	@echo "make test        run the tests          make slow    run the tests that take minutes"
	@echo "make lint types  ruff and mypy          make setup   only set up .venv"
	@echo "make verify-all  compare every runtime and processor, emulated ones too, into docs/processors.md (an hour; installs what it needs)"
	@echo "make figures     measure everything again into benchmarks/results (hours; needs the Mars pictures, docs/data.md)"
	@echo "make report      write docs/report.html: all figures on one page"
	@echo "make readme      write these figures into README.md, the model card and docs/experiments.md"
	@echo "make gpu-bundle  pack what training on a GPU machine needs"
	@echo "make clean       remove what was built (.venv too)"

encoder: $(STAMP)
	$(BIN)/python export/rover_encoder.py $(ARGS)

flight: $(STAMP)
	$(BIN)/python export/flight_c.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy runtime/remac_runtime $(CHECKED)

# What has passed is kept, so a run that was cut off goes on. Run by root, it installs the compilers and emulators too (Debian).
verify-all: $(STAMP)
	@test -f build/rover-m/analysis.onnx || $(BIN)/python export/rover_encoder.py
	$(BIN)/python -m benchmarks.processors.run --install $(ARGS)

gpu-bundle: $(STAMP)
	$(BIN)/python -m remac.gpu_bundle $(ARGS)

# Finished parts are kept, so a run that was cut off goes on; `make figures ARGS="speed boards"` measures some. The speeds need an idle machine.
figures: $(STAMP)
	$(BIN)/python benchmarks/run.py $(ARGS)

report: $(STAMP)
	$(BIN)/python benchmarks/report.py -o docs/report.html

readme: $(STAMP)
	$(BIN)/python -m benchmarks.readme $(ARGS)

setup: $(STAMP)

# Some systems ship venv without ensurepip; pip can then be put in from outside.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "make: needs Python 3.11 or newer, found '$(PYTHON)': name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (some minutes the first time)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet $(PIP_FLAGS) pip; }

# compressai is installed without its dependencies, which pin numpy < 2 and pull a torchvision that does not load beside a CPU build of torch.
$(STAMP): $(BIN)/python pyproject.toml runtime/pyproject.toml Makefile $(C_SOURCES)
	$(PIP) install -e './runtime[onnx,files,ground]' -e '.[train,export,ground,bench,dev,engines]'
	$(PIP) install --no-deps compressai==1.2.8
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf runtime/build *.egg-info runtime/*.egg-info runtime/remac_runtime/*.so
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

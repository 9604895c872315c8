# `make demo` trains a sample scene from nothing; `make test` runs the tests. Both make the environment if it is missing.
PYTHON ?= python3
BIN := .venv/bin
# Neither tests nor demo may touch the network once the environment stands.
export HF_HUB_OFFLINE := 1

.PHONY: help setup wheel demo test test-core test-slow test-export test-viewer test-gpu gpu-check gpu-kit lint types format clean
help:
	@echo "make setup      the environment in .venv (idempotent)"
	@echo "make setup FACE=core  the same without nerfstudio, in .venv-core"
	@echo "make wheel      a wheel that needs no compiler, in dist/"
	@echo "make demo       make a sample scene, train on it, evaluate, export a PLY"
	@echo "make test       lint, types and the test suite (needs no GPU)"
	@echo "make test-core  the test suite without nerfstudio and gsplat, by PYTHON= (3.10 to 3.13)"
	@echo "make test-slow  training and rendering on real scenes (LPM_TEST_DATA=folder)"
	@echo "make test-export  what we write, opened by programs of others (needs Node, npm and Chromium)"
	@echo "make test-viewer  our pages in headless Chromium (needs Node, npm and Chromium)"
	@echo "make test-gpu   CPU/CUDA parity (needs an NVIDIA GPU)"
	@echo "make gpu-kit    .gpu/: what a bare GPU machine without a network needs (LPM_TEST_DATA=folder)"
	@echo "make gpu-check  test-gpu, then kernels and training beside splatfacto (LPM_TEST_DATA=folder; minutes)"

# FACE=core: without nerfstudio, on any Python from 3.10 on, in .venv-core.
FACE ?= nerfstudio
setup:
	@$(PYTHON) tools/setup.py $(FACE)

wheel: setup
	@$(BIN)/python tools/make_wheel.py

demo: setup
	@$(BIN)/python tools/demo.py

QUICK := -n 2 --dist loadfile -m "not slow and not gpu and not export and not viewer"
# Two tests at a time, with a thread each: two that think they have all cores would wait for one another.
test: setup lint types
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest $(QUICK)

# What needs the host is skipped, and named; see tests/conftest.py.
test-core:
	@$(PYTHON) tools/setup.py core
	@.venv-core/bin/python -m pip --disable-pip-version-check -q install -e '.[test]'
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv-core/bin/python -m pytest $(QUICK)

test-slow: setup
	@$(BIN)/python -m pytest -m slow

# They wait for pages most of the time: two at a time.
test-export: setup
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 -m export

test-viewer: setup
	@$(BIN)/python -m pytest -m "viewer and not slow"

test-gpu: setup
	@$(BIN)/python -P -m pytest -m gpu

# Without `setup`: it must work where only torch, nvcc and carried wheels are, with PYTHON= the interpreter that has them.
# -P: the checkout's own lpm/, which lacks cuda/, scenes/ and viewer/, must not be found before the installed one. A test
# that fails does not keep the benchmark from its run; the last failure is what make says.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu-check:
	@code=0; \
	$(GPU_PYTHON) -P -m pytest -m gpu || code=$$?; \
	$(GPU_PYTHON) -P benchmarks/gpu.py --data $(LPM_TEST_DATA) --out benchmarks/results/gpu/check.json || code=$$?; \
	exit $$code

# Fetches wheels; then, on the machine with the GPU, in a copy of this checkout: python3 .gpu/on_machine.py
gpu-kit: setup
	@$(BIN)/python tools/gpu_kit/prepare.py

KERNELS := $(wildcard cuda/csrc/*.cpp cuda/csrc/*.cu cuda/include/*.h)
lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(KERNELS)

# mypy wants the import layout on disk: a farm of links shows it lpm/cuda, lpm/scenes and lpm/viewer.
types: setup
	@rm -rf .cache/types && mkdir -p .cache/types/lpm
	@ln -s $(CURDIR)/lpm/* .cache/types/lpm/
	@for part in cuda scenes viewer; do ln -s $(CURDIR)/$$part .cache/types/lpm/$$part; done
	@cd .cache/types && ../../$(BIN)/mypy --cache-dir ../mypy --config-file ../../pyproject.toml -p lpm

format: setup
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(KERNELS)

clean:
	rm -rf .cache build *.egg-info

# make setup      everything into .venv (seconds when nothing changed)
# make demo       set-up, a prediction by the shipped model, then a training of minutes
# make test       set-up, then the tests          make test-slow   the longer proofs
# make check      lint, format, types, C++ format, the site, and the CUDA file where nvcc is installed
# make site       the documentation as web pages, in build/site
# make bench      every benchmark table          make fuzz        damaged annotations and images
# make faults     break training in every way, print the table (about ten minutes)
# make mutations  plant faults in the evaluators, print the test that catches each
# make soak       10,000 iterations: memory, open files and logs do not grow
# make wheel      dist/*.whl for every Linux x86-64 with glibc 2.28, the CUDA operators inside where
#                 nvcc is installed; tools/check_wheel.py tries it beside several versions of PyTorch
#
# PYTHON=python3.12 chooses the interpreter of a new .venv, DETECTRON2=git installs Detectron2
# from its repository with its extension instead of the pure-Python release.
SHELL := /bin/bash
PYTHON ?= python3
DETECTRON2 ?= release
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := setup.py $(shell find seg_plugins/ops/csrc -type f)
# Without a terminal pip's progress bars are noise; a retry costs nothing.
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --retries 5

.PHONY: setup demo test test-slow check site fuzz faults mutations soak bench wheel clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.extension

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "The pinned set-up needs Python 3.11 to 3.13, this is %d.%d: make setup PYTHON=python3.12" % v)'
	@echo "== creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.requirements: requirements.txt $(VENV)/.created
	@echo "== installing the pinned packages (PyTorch is large: minutes on a slow line)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.detectron2: $(VENV)/.requirements seg_plugins/cli/install_detectron2.py
	@echo "== installing Detectron2 ($(DETECTRON2))"
	@$(PY) -m seg_plugins install-detectron2 --source $(DETECTRON2)
	@touch $@

$(VENV)/.extension: $(VENV)/.detectron2 $(SOURCES)
	@echo "== building and installing seg_plugins"
	@$(PIP) --no-build-isolation --no-deps -e .
	@$(PY) -m seg_plugins.ops
	@touch $@

demo: setup
	$(PY) tools/demo.py

test: setup
	$(PY) -m pytest

# The oldest onnxruntime that exported files are tried on, with the NumPy of its time. Where there is
# no wheel of it, or no network, the tests that need it are skipped.
OLDEST := build/oldest-onnxruntime
$(OLDEST): | $(VENV)/.requirements
	@rm -rf $@ $@.part
	@$(PIP) --no-deps --only-binary :all: --target $@.part 'onnxruntime==1.15.1;python_version<"3.12"' \
	  'onnxruntime==1.17.3;python_version=="3.12"' 'onnxruntime==1.20.1;python_version>"3.12"' \
	  'numpy<2;python_version<"3.13"' && mv $@.part $@ || echo "== $@ is missing: its tests are skipped"

test-slow: setup $(OLDEST)
	$(PY) -m pytest -m slow

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) tools/compile_cuda.py
	$(VENV)/bin/clang-format --dry-run -Werror $$(find seg_plugins/ops/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet

site: setup
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

fuzz: setup
	$(PY) -m pytest -m slow tests/data/doctor/test_fuzz.py

SCALE ?= 1.0
faults: setup
	$(PY) -m tests.faults --scale $(SCALE)

mutations: setup
	$(PY) -m tests.mutations

soak: setup
	$(PY) tests/faults/soak.py

bench: setup
	@for script in tools/benchmark_*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

# The wheel's name says the oldest Linux that it runs on; PyTorch's libraries are found at run time.
wheel: export TORCH_CUDA_ARCH_LIST ?= 8.0;9.0;10.0;12.0+PTX
wheel: setup
	@rm -rf build/lib* build/wheel
	$(if $(shell command -v nvcc),FORCE_CUDA=1) $(PY) -m pip wheel --no-build-isolation --no-deps -w build/wheel .
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --plat manylinux_2_28_x86_64 --only-plat --exclude 'libtorch*' --exclude 'libc10*' \
	  --exclude 'libcudart*' -w dist build/wheel/*.whl

clean:
	rm -rf build dist *.egg-info seg_plugins/*.so .pytest_cache .mypy_cache .ruff_cache

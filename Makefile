# SPDX-License-Identifier: Apache-2.0
# make demo   set up everything and run the main job on a LiDAR frame
# make test   set up everything and run the tests; ARGS="tests/quant -k ranges" chooses some
# make coverage   which lines the tests run, of Python and of the CPU's C++; fails below 90 % and 85 %
# make lint   formatting, lint and types
# make docs   the documentation as a site, in build/docs; make pictures draws its pictures again
# make ext    rebuild the compiled module that tests and commands load, in seconds after a change
# make stub   write scn_fx/_core.pyi anew, after a change of bindings
# make fuzz   look for inputs that break the engine, MINUTES=10 (needs Clang)
# make asan, make ubsan, make tsan   the C++ and CPU tests under a sanitizer
# make compute-sanitizer             some of the GPU tests under NVIDIA's memcheck and racecheck
#
# SCN_FX_CUDA=auto|on|off and SCN_FX_CUDA_ARCHS choose the CUDA backend, see cmake/cuda.cmake.
# The environment lives in $(VENV). SCN_FX_DATA may name a folder of real LiDAR frames; demo and test use them too.

PYTHON ?= python3
VENV   ?= .venv
# A range would also do (see pyproject.toml); one release keeps two visitors' runs comparable.
TORCH  ?= torch==2.13.0
DEMO_OUTPUT ?= demo_output
# What pyproject.toml builds with, and CMake. They stay in the environment: with tools that pip makes anew for each
# build, everything is compiled again.
BUILD_TOOLS := "scikit-build-core>=0.10" "nanobind>=2.8" "cmake>=3.26" ninja

# pip's lines that say what takes time: downloads of megabytes, builds (each minute of one too), the installation.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PIP_LINES := | sed -un -E '/^ *(Downloading .*[0-9] [MG]B|Building|Installing|Successfully installed)/s/^ *(.{0,110}).*/   \1/p'

BIN     := $(VENV)/bin
PIP     := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --progress-bar off
READY   := $(VENV)/.ready
WITH    := $(VENV)/.with
# Tests read the site's extension, check types and lay out the stub.
TESTS   := $(addprefix $(WITH)-,test lint docs)
MINUTES ?= 10
CXX_FILES := $(shell find scn_fx/csrc examples tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
SOURCES := pyproject.toml CMakeLists.txt cmake/cuda.cmake cmake/checks.cmake cmake/install.cmake cmake/shared.cmake $(filter scn_fx/%,$(CXX_FILES))

.PHONY: demo test coverage lint format docs pictures ext stub fuzz asan ubsan tsan compute-sanitizer clean

demo: $(READY)
	$(BIN)/scn-fx demo --output-dir $(DEMO_OUTPUT)

# One thread for each process: threads that wait for each other's processors take twice as long. The tests of a file
# stay in one process, as their fixtures are slow.
test: $(TESTS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

coverage: $(TESTS) $(WITH)-coverage
	$(BIN)/python -m tests.coverage $(ARGS)

lint: $(WITH)-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/hadolint Dockerfile

format: $(WITH)-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

$(READY): $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "scn-fx needs Python 3.10 or newer, this is " + sys.version)'
	@echo "== Setting up $(VENV), once; this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== 1 of 3: $(TORCH). Its CPU build is enough; where pip takes the CUDA build, of several GB, see"
	@echo "   docs/how-to/install.md for how to choose"
	@$(PIP) "$(TORCH)" $(PIP_LINES)
	@echo "== 2 of 3: build tools"
	@$(PIP) $(BUILD_TOOLS) $(PIP_LINES)
	@echo "== 3 of 3: scn-fx, compiled here (1 to 3 minutes), and the packages that the demo uses"
	@$(PIP) --no-build-isolation --editable ".[all,spconv-cpu]" $(PIP_LINES)
	@echo "== $(VENV) is ready"
	touch $@

# What tests, lint, docs and coverage use beside it: pip reads the extra from the installed package.
$(WITH)-%: $(READY)
	@echo "== Installing what make needs for: $*"
	@$(PIP) "scn-fx[$*]" $(PIP_LINES)
	touch $@

# The same installation, and so the same build folder: pip puts the module where Python looks for it.
ext:
	test -e $(READY) || $(MAKE) $(READY)
	$(PIP) --quiet --no-build-isolation --no-deps --editable .
	touch $(READY)

stub: $(WITH)-lint
	$(BIN)/python tools/write_stub.py

# Every warning is an error: a link that leads nowhere, a docstring that does not render.
docs: $(WITH)-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "saved build/docs/index.html"

pictures: demo
	$(BIN)/python -m docs.scripts.draw_demo $(DEMO_OUTPUT)/scn.onnx
	$(BIN)/python -m docs.scripts.draw_speed

fuzz: $(TESTS)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

asan ubsan tsan compute-sanitizer: $(TESTS)
	$(BIN)/python -m tests.sanitizers $@

clean:
	rm -rf build $(VENV) $(DEMO_OUTPUT) scn_fx/_core*.so

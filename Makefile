# SPDX-License-Identifier: Apache-2.0
# make demo   set up everything and run the main job on a LiDAR frame
# make test   set up everything and run the tests; ARGS="tests/quant -k ranges" chooses some
# make lint   formatting, lint and types
# make docs   the documentation as a site, in build/docs; make pictures draws its pictures again
# make ext    rebuild the compiled module that tests and commands load, in seconds after a change
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
BUILD_TOOLS := "scikit-build-core>=0.10" "nanobind>=2.2" "cmake>=3.20" ninja

BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
MINUTES ?= 10
CXX_FILES := $(shell find scn_fx/csrc examples tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
SOURCES := pyproject.toml CMakeLists.txt cmake/cuda.cmake cmake/checks.cmake cmake/install.cmake $(filter scn_fx/%,$(CXX_FILES))

.PHONY: demo test lint format docs pictures ext fuzz asan ubsan tsan compute-sanitizer clean

demo: $(READY)
	$(BIN)/scn-fx demo --output-dir $(DEMO_OUTPUT)

# One thread for each process: threads that wait for each other's processors take twice as long. The tests of a file
# stay in one process, as their fixtures are slow.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

$(READY): $(SOURCES)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "scn-fx needs Python 3.10 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)" $(BUILD_TOOLS)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,lint,docs]"
	touch $@

# The same installation, and so the same build folder: pip puts the module where Python looks for it.
ext:
	test -e $(READY) || $(MAKE) $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $(READY)

# Every warning is an error: a link that leads nowhere, a docstring that does not render.
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "saved build/docs/index.html"

pictures: demo
	$(BIN)/python -m docs.scripts.draw_demo $(DEMO_OUTPUT)/scn.onnx
	$(BIN)/python -m docs.scripts.draw_speed

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

asan ubsan tsan compute-sanitizer: $(READY)
	$(BIN)/python -m tests.sanitizers $@

clean:
	rm -rf build $(VENV) $(DEMO_OUTPUT) scn_fx/_core*.so

# Two commands do everything: `make demo` and `make test`. Both make .venv and install what they need into it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
ORT    ?= training
EXTRAS ?=

NATIVE = passes/blocks/_sequitur.cpp $(wildcard runtime/kernels/*.cpp runtime/kernels/*.h)

comma := ,
WITH_EXTRAS = $(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: demo test test-matrix fuzz mutants unit lint types install clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits_onnx/write_images.py build/digits
	$(BIN)/wootz run examples/digits_onnx/digits.onnx --data build/digits --baseline --fresh

test: $(VENV)/.test$(EXTRAS) lint types
	$(BIN)/python -m pytest tests -n auto

# The training graphs on each ONNX Runtime that is promised: the builds exclude each other, so each has a .venv of its own.
MATRIX = onnxruntime==1.19.2 onnxruntime-training==1.19.2 onnxruntime==1.22.1 onnxruntime
test-matrix: $(addprefix build/matrix/,$(addsuffix .passed,$(MATRIX)))

build/matrix/%.passed: FORCE
	$(PYTHON) -m venv build/matrix/$*
	build/matrix/$*/bin/python -m pip install -q . pytest hypothesis '$*'
	cd tests && ../build/matrix/$*/bin/python -m pytest --rootdir=. --import-mode=importlib -q passes/training
	touch $@

# Faults planted in an installation of its own, and whether a test notices them: hours for a large --each.
mutants:
	$(PYTHON) -m venv build/mutants
	build/mutants/bin/python -m pip install -q '.[training,mpi,dask,lmdb,parquet,hdf5,examples,tensorboard,test]' cosmic-ray
	build/mutants/bin/python tests/mutation/run.py $(MUTANTS)

.PHONY: FORCE
FORCE:

# Damaged files for every reader, a minute or two for each thousand; those that show a fault are kept in build/fuzz.
FUZZ ?= 25000
fuzz: $(VENV)/.test$(EXTRAS)
	$(BIN)/python tests/fuzz/driver.py --inputs $(FUZZ)

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# An editable install maps folders where mypy can't follow: it gets the installed layout as links instead.
types: build/types/wootz/examples
	MYPYPATH=build/types:typings $(BIN)/python -m mypy -p wootz
	MYPYPATH=build/types:typings $(BIN)/python -m mypy benchmarks/*.py benchmarks/paper/*.py benchmarks/paper/by_hand/*.py

build/types/wootz/examples:
	mkdir -p $(@D)
	ln -sfn $(CURDIR)/src/wootz/__init__.py $(CURDIR)/src/wootz/py.typed $(CURDIR)/passes $(CURDIR)/frontend \
	        $(CURDIR)/runtime $(CURDIR)/tools $(CURDIR)/examples $(@D)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml CMakeLists.txt $(NATIVE)
	$(BIN)/python -m pip install -q -e '.[$(ORT),examples]'
	touch $@

$(VENV)/.test$(EXTRAS): $(VENV)/bin/python pyproject.toml CMakeLists.txt $(NATIVE)
	$(BIN)/python -m pip install -q -e '.[$(ORT),mpi,dask,lmdb,parquet,hdf5,examples,tensorboard,test$(WITH_EXTRAS)]'
	touch $(VENV)/.demo $@

clean:
	rm -rf build $(VENV)

# Two commands do everything: `make demo` and `make test`. Both make .venv and install what they need into it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN     = $(VENV)/bin
ORT    ?= training
EXTRAS ?=

comma := ,
WITH_EXTRAS = $(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: demo test unit lint types install clean

demo: $(VENV)/.demo
	$(BIN)/wootz run --baseline --overwrite

test: $(VENV)/.test$(EXTRAS) lint types
	$(BIN)/python -m pytest tests -n auto

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# An editable install maps folders where mypy can't follow: it gets the installed layout as links instead.
types: build/types/wootz
	MYPYPATH=build/types:typings $(BIN)/python -m mypy -p wootz

build/types/wootz:
	mkdir -p $@
	ln -s $(CURDIR)/src/wootz/__init__.py $(CURDIR)/src/wootz/py.typed $(CURDIR)/passes $(CURDIR)/frontend \
	      $(CURDIR)/runtime $(CURDIR)/tools $(CURDIR)/examples $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml CMakeLists.txt passes/analysis/_sequitur.cpp
	$(BIN)/python -m pip install -q -e '.[$(ORT),examples]'
	touch $@

$(VENV)/.test$(EXTRAS): $(VENV)/bin/python pyproject.toml CMakeLists.txt passes/analysis/_sequitur.cpp
	$(BIN)/python -m pip install -q -e '.[$(ORT),mpi,lmdb,examples,test$(WITH_EXTRAS)]'
	touch $(VENV)/.demo $@

clean:
	rm -rf build $(VENV)

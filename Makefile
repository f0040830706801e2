# `make demo` and `make test` work on a machine with Python >= 3.11 and make: they
# build .venv, install jflow with what they need, and run. PYTHON names another
# interpreter: make test PYTHON=/opt/python3.12/bin/python3

.DELETE_ON_ERROR:
.PHONY: demo picture test test-matrix lint clean

VENV := .venv
BIN := $(VENV)/bin
# Two workers: the tests are meant for two cores, and JAX uses all it finds. Each has
# whole files, whose tests share what is compiled.
WORKERS ?= 2

demo: $(VENV)/demo.stamp
	$(BIN)/python benchmarks/images.py glow --data digits --out demo --results demo/metrics.json

# The picture at the head of README.md.
picture: demo
	mkdir -p benchmarks/results
	cp demo/samples.png benchmarks/results/digits_glow.png

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Python 3.11, 3.12 and 3.13, each with the oldest packages that setup.cfg allows and
# with the newest. MATRIX="3.11-oldest 3.12-newest" chooses, TESTS=tests/scalars too.
test-matrix:
	WORKERS=$(WORKERS) ./.ci/test_matrix.sh $(MATRIX) -- $(TESTS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .matrix demo runs *.egg-info

# The first interpreter that runs and is new enough. A name may be there without
# running (pyenv's shims), so each is tried.
$(BIN)/python:
	@python= ; \
	for candidate in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
	    test -n "$$candidate" || continue; \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	        2>/dev/null; then python="$$candidate"; break; fi; \
	    if test "$$candidate" = "$(PYTHON)"; then \
	        echo "PYTHON=$(PYTHON) does not run or is older than 3.11." >&2; exit 1; \
	    fi; \
	done; \
	if test -z "$$python"; then \
	    echo "jflow needs Python >= 3.11, and none was found on the PATH." >&2; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)

# Python compiles what is imported; most of what is installed never is. It must be kept:
# the tests start many processes, each of which would compile it again.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --no-compile

# A stamp is newer than what it was installed from, so a second run installs nothing.
$(VENV)/demo.stamp: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) --upgrade pip
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/test.stamp: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) --upgrade pip
	$(PIP) --editable '.[test]'
	touch $@

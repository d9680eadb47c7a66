# `make` alone lists the targets; the text after `##` is what it prints.
# Paths stay relative, so that a checkout in a folder with spaces works.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The two thresholds keep freed memory in the process: half of the time in the kernel went to faulting it in again.
SEVERAL := OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824 "$(BIN)/python" -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [ARGS='-k name']"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: venv
venv: $(STAMP) ## create the virtual environment and install yolo-kd with everything (about 6.5 GB, some minutes)

$(STAMP): setup.py constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "'$(PYTHON)' was not found; name a Python 3.11 or newer: make venv PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "the tested versions in constraints.txt need Python 3.11 or newer, '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1);"; \
		echo "name another one: make venv PYTHON=python3.12"; exit 1; }
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)" || { \
		echo; echo "'$(PYTHON) -m venv' cannot put pip into $(VENV), see above."; \
		echo "On Debian or Ubuntu: sudo apt install python3-venv. Or name another Python: make venv PYTHON=python3.12"; \
		exit 1; }
	@echo "installing yolo-kd with torch, Ultralytics, OpenVINO and ONNX Runtime into $(VENV): about 6.5 GB, some minutes"
	@"$(BIN)/python" -m pip install --disable-pip-version-check -e ".[all,dev]" -c constraints.txt
	@touch "$(STAMP)"
	@echo "installed; 'make demo' is a good next step, 'source $(BIN)/activate' puts yolo-kd on your path"

.PHONY: demo
demo: $(STAMP) ## distil and quantize a small student on a rendered data set, nothing to download
	@"$(BIN)/yolo-kd" demo

.PHONY: test
test: $(STAMP) browser ## the whole test suite, on several cores (ARGS goes to pytest)
	@$(SEVERAL) $(ARGS)

# The reports are opened in a real browser; CHROMIUM=/path/to/one names another than the usual ones.
.PHONY: browser
browser: ## install the headless Chromium that the tests open reports in, unless there is one (apt-get)
	@for name in "$${CHROMIUM:-chromium}" chromium chromium-browser google-chrome google-chrome-stable chrome; do \
		if command -v "$$name"; then exit 0; fi; done; \
	if ! command -v apt-get >/dev/null; then \
		echo "no Chromium, and no apt-get to install it with: install Chromium or Chrome, or name one with CHROMIUM=/path"; \
		exit 1; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium; \
	command -v chromium

.PHONY: check
check: lint types fast ## what to run before a commit: lint, types, import rules, fast tests

.PHONY: lint
lint: $(STAMP) ## ruff: rules and format
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .

# mypy finds yolo_kd.cfg, yolo_kd.data and yolo_kd.deploy only where they lie inside yolo_kd, as they do once installed.
# A folder of links shows it that tree without building a wheel; sed turns its paths back into those of the checkout.
.PHONY: types
types: $(STAMP) ## mypy
	@rm -rf build/types && mkdir -p build/types/yolo_kd
	@cd build/types/yolo_kd && ln -s ../../../yolo_kd/*.py ../../../yolo_kd/*/ ../../../cfg ../../../data ../../../deploy .
	@ln -s ../../benchmarks build/types/benchmarks
	@test -e build/types/yolo_kd/errors.py # a folder of dead links would pass as free of errors
	@py="$$(cd "$(BIN)" && pwd)/python"; cd build/types && \
		"$$py" -m mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p yolo_kd -p benchmarks \
		| sed -E 's#^yolo_kd/(cfg|data|deploy)/#\1/#'

# Without the tests that train models, which `make test` runs.
.PHONY: fast
fast: $(STAMP) ## the tests that train no model, on several cores (ARGS goes to pytest)
	@$(SEVERAL) -m "not slow" --ignore=tests/engine $(ARGS)

.PHONY: format
format: $(STAMP) ## sort imports, mend what ruff can mend, format
	@"$(BIN)/ruff" check --fix .
	@"$(BIN)/ruff" format .

.PHONY: wheel
wheel: $(STAMP) ## build dist/yolo_kd-*.whl from an empty build/
	@rm -rf build dist
	@"$(BIN)/python" -m build --wheel
	@ls -l dist/

.PHONY: results
results: $(STAMP) ## write docs/results.md anew from docs/results/*.json
	@"$(BIN)/python" -m benchmarks.render

.PHONY: clean
clean: ## remove what was built and cached; runs/ and the virtual environment stay
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -path "./$(VENV)" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean; 'rm -r $(VENV)' removes the virtual environment as well"

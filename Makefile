# Needs Python 3.11 or newer, make and a network, nothing else: `make demo`, `make test`.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
WHEEL_VENV := build/wheel-venv

# A PYTHON that somebody chose is used or refused; otherwise the first that is new enough.
ifeq ($(origin PYTHON),undefined)
PYTHONS := python3 python3.11 python3.12 python3.13 python3.14
else
PYTHONS := $(PYTHON)
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(STAMP) ## replay real flights while actors are being killed
	$(BIN)/python -m planaria demo

.PHONY: test
test: $(COMPILED) ## all tests but the long ones, three workers for each core: they wait more than they compute
	$(BIN)/python -m pytest -n $$((3 * $$(getconf _NPROCESSORS_ONLN))) --dist loadfile --no-loadscope-reorder

.PHONY: explore
explore: $(STAMP) ## twenty times as many random examples as in `make test`, and new ones in every run
	nice -n 10 $(BIN)/python -m pytest -m '(hypothesis or seeded) and not chaos' --hypothesis-profile explore \
	    -n $$(getconf _NPROCESSORS_ONLN) --timeout=0 -o faulthandler_timeout=0

.PHONY: chaos
chaos: $(STAMP) ## long runs under random kills
	$(BIN)/python -m pytest -m chaos --timeout=0 -o faulthandler_timeout=0

.PHONY: bench
bench: $(STAMP) ## throughput, latency and recovery beside the machine's own ceiling
	$(BIN)/python -m planaria bench

.PHONY: screenshots
screenshots: $(STAMP) ## the pictures of the console in docs/images; needs Chromium (.ci/chromium installs it)
	.ci/chromium
	$(BIN)/python tests/support/console_screenshots.py

.PHONY: mutants
mutants: $(STAMP) ## break the product here and there; print the breaks that no test notices
	nice -n 10 $(BIN)/python tests/mutants.py

.PHONY: lint
lint: $(STAMP) ## formatting and lint rules
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

# Types are checked on an installed wheel: that is what a user's checker sees, and it proves that the wheel is complete.
.PHONY: types
types: $(STAMP) ## mypy --strict on a freshly built and installed wheel
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/dist .
	$(BIN)/python -m venv $(WHEEL_VENV)
	wheel=$$(echo build/dist/planaria-*.whl) && $(WHEEL_VENV)/bin/python -m pip install --quiet "$$wheel[console,lz4,otel,zstd]" mypy pytest
	cd $(WHEEL_VENV) && bin/python -m mypy --config-file ../../pyproject.toml --cache-dir ../mypy --strict -p planaria

# Its tools are not needed for development, so they have an environment of their own. The package is installed there, for
# the reference pages are made from its docstrings.
.PHONY: site
site: $(STAMP) ## the documentation as a site, in build/site; a broken link or name fails it
	$(BIN)/python -m venv build/docs-venv
	build/docs-venv/bin/python -m pip install --quiet --disable-pip-version-check '.[docs]'
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/python -m mkdocs build --quiet --strict

# Into a folder that Python prefers to the checkout. The tests are those of the modules that are compiled, of the
# producers that use them, and some that kill processes.
COMPILED_TESTS := tests/rules/test_compiled.py tests/client/test_accumulator.py tests/client/test_gathered_records.py \
    tests/client/test_publish_shapes.py tests/client/test_content.py tests/client/test_pace.py \
    tests/client/test_producer.py tests/aio/test_client.py tests/integration/test_killed_members.py
.PHONY: compiled
compiled: $(STAMP) ## a wheel with compiled modules, in build/compiled, and the tests of what differs; needs a C compiler
	rm -rf build/compiled
	PLANARIA_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/compiled .
	$(BIN)/python -m pip install --quiet --no-deps --target build/compiled/site build/compiled/planaria-*.whl
	PLANARIA_COMPILE=1 PYTHONPATH=$(CURDIR)/build/compiled/site \
	    $(BIN)/python -m pytest -n $$(getconf _NPROCESSORS_ONLN) $(COMPILED_TESTS)

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An editable install names the checkout's path: a checkout that was moved or copied installs again.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml
	@python=; for candidate in $(PYTHONS); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Planaria needs Python 3.11 or newer; tried: $(PYTHONS). Name one with: make PYTHON=/path/to/python" >&2; \
	    exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@echo '$(CURDIR)' > $@

# Each worker of a first run would compile all tests for itself.
$(COMPILED): $(STAMP)
	@for half in 'tests/[a-i]*' 'tests/[j-z]*'; do $(BIN)/python -m pytest --collect-only -qq $$half >/dev/null & done; wait
	@touch $@

# Everything from nothing: Debian with python3 (3.11 or newer), python3-venv, python3-dev, gcc and make.
# Each step leaves a stamp, so that a second run does nothing twice.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60
SECONDS ?= 60
SEED ?= 1
IMAGE ?= agw:latest
EXTRAS ?=
CPUS := $(shell nproc 2>/dev/null || echo 2)
MORE := $(shell echo $$(( $(CPUS) + ($(CPUS) + 1) / 2 )))

VENV := .venv
BIN := $(VENV)/bin
# cython-lint calls pycodestyle, and lint-imports the package: both are found by PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Whoever keeps Python from writing its compiled files does not mean these folders, where each start would be slow.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --no-deps

MADE := $(VENV)/.made
TOOLS := $(VENV)/.tools
COMPILED := $(VENV)/.compiled
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
BUILT := $(VENV)/.built
TRACED := build/trace/.built
SANITIZED := build/sanitize/.built
CLIENTS := build/clients/.installed

EXT := $(shell find ext -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h') setup.py
PACKAGE := $(shell find agw_proxy -name '*.py')

.PHONY: help run build setup test test-full clients faults soak fuzz lint fmt typecheck test-trace test-release test-plain test-measured test-again coverage bench bench-proxies smoke docker-build lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' Makefile

run: setup  ## set up what is missing and serve the example agents (or ARGS="--config my.yaml")
	@$(if $(ARGS),,GATEWAY_AGENT_DISCOVERY_PATH=$${GATEWAY_AGENT_DISCOVERY_PATH:-examples/agents}) exec $(BIN)/agw serve $(ARGS)

build: setup  ## the compiled modules and the command .venv/bin/agw

# Packages are fetched while the modules are compiled.
setup:
	@$(MAKE) -j2 $(BUILT)

# --- environment and builds ---------------------------------------------------------------------------------------

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "agw needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv is missing: apt-get install python3-venv python3-dev gcc" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(TOOLS): requirements-build.lock $(MADE)
	$(PIP) --require-hashes -r requirements-build.lock
	@touch $@

$(RUNTIME): requirements.lock $(TOOLS)
	$(PIP) --require-hashes -r requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(COMPILED): $(EXT) $(TOOLS)
	@echo "compiling the core"
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

# pip makes the command once, from what is compiled already.
$(BUILT): $(COMPILED) $(RUNTIME)
	@[ -x $(BIN)/agw ] || $(PIP) --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q agw_proxy
	@touch $@

# Cython's tracing turns a returned C struct into a dict, and so reads its pointers as C strings, which ours are not:
# in the C code between Cython and the compiler such returns are traced as None.
NO_STRUCTS := s/__Pyx_TraceReturnCValue([^,]*, __pyx_convert__to_py_struct[a-zA-Z0-9_]*,/__Pyx_TraceReturnValue(Py_None,/

$(TRACED): $(EXT) $(PACKAGE) $(RUNTIME)
	@echo "building with line tracing"
	@AGW_BUILD=trace $(BIN)/python setup.py --quiet --version >/dev/null
	@find build/trace/c -name '*.c' -exec sed -i '$(NO_STRUCTS)' {} +
	@AGW_BUILD=trace $(BIN)/python setup.py -q build_py --build-lib build/trace/lib \
		build_ext --build-lib build/trace/lib --build-temp build/trace/objects
	@touch $@

$(SANITIZED): $(EXT) $(PACKAGE) $(RUNTIME)
	@echo "building with the sanitizers"
	@AGW_BUILD=sanitize $(BIN)/python setup.py -q build_py --build-lib build/sanitize/lib \
		build_ext --build-lib build/sanitize/lib --build-temp build/sanitize/objects
	@touch $@

# --- checks -------------------------------------------------------------------------------------------------------

# The checks and the traced tests share the cores; the tests proper, which wait a lot, have three processes a core, and
# close the output.
test:  ## lint, types, and all quick tests with coverage (release build, and line-traced .pyx)
	@rm -f .coverage .coverage.*
	@$(MAKE) -j2 $(DEV) $(BUILT)
	@$(MAKE) -j2 --output-sync=target lint typecheck test-trace
	@$(MAKE) test-release

lint: $(DEV) $(BUILT)  ## ruff, cython-lint, the floors of the house, dead code
	ruff check --quiet --extend-exclude build .
	ruff format --check --quiet --extend-exclude build .
	cython-lint ext
	lint-imports --no-cache
	vulture
	python -m pytest -q --no-header -p no:cacheprovider -m "" -k "not import_contracts" tests/test_architecture.py

fmt: $(DEV)  ## format, and mend what ruff can
	ruff format --extend-exclude build .
	ruff check --fix --extend-exclude build .

typecheck: $(DEV) $(BUILT)  ## mypy --strict over package, tests and benchmarks
	mypy

# The package of the traced build must win over the checkout, hence the import mode. Tracing itself allocates, and makes
# processes that crowd one table too slow to crowd it; and what is fed in every possible split, or ten thousand times,
# passes no line that is not passed without: those tests run on the release build alone.
UNTRACED := not without_allocating and not processes and not in_every_split and not in_any_split and not ten_thousand \
	and not megabyte and not retry_budget

test-trace: $(DEV) $(TRACED)
	AGW_HOT_LIB=build/trace/lib PYTHONPATH=$(CURDIR)/build/trace/lib:$(CURDIR) HYPOTHESIS_PROFILE=fast COVERAGE_CORE=ctrace \
		pytest -q --no-header -p no:cacheprovider --import-mode=importlib --timeout=300 -n $(CPUS) --dist loadfile \
		--cov --cov-append --cov-report= --cov-fail-under=0 -k "$(UNTRACED)" \
		--ignore tests/edge/test_supervisor.py tests/hot tests/edge

# Measuring coverage doubles what a test costs. It is left out where others show the lines: for whole gateways but those
# that are here, where many cases take one way through the code (a corpus, a fault for each pair), and for the compiled
# modules, which are measured above.
MEASURED := $(addprefix tests/e2e/test_,$(addsuffix .py,\
	affinity agents agents_apart bedrock budgets_finish cache cache_flights cache_redis doctor egress fallbacks \
	idempotency raw realtime replicas responses_socket runs sdk_models stored translation_whole vertex workers))
UNMEASURED := tests/hot tests/faults tests/upstreams/test_adaptive.py \
	$(filter-out $(MEASURED),$(sort $(wildcard tests/e2e/test_*.py)))
QUICK = -m "not full and not clients" -n $(MORE) --dist loadfile -o cache_dir=.pytest_cache/$@ $(PYTEST_ARGS)

# Both halves run side by side, each with more processes than there are cores, since most tests wait for something; the
# output of the second comes at its end. That makes others late: what fails is run again by itself, when all is done, and
# named (.ci/alone).
test-release: $(DEV) $(BUILT)
	@rm -rf .pytest_cache && mkdir .pytest_cache
	@$(MAKE) -j2 -k test-plain test-measured || $(MAKE) test-again
	@PYTHONPATH=$(CURDIR) coverage report >/dev/null  # fails below the floor, whatever was run again

test-plain: $(DEV) $(BUILT)
	PYTHONPATH=$(CURDIR) pytest --no-cov $(QUICK) $(UNMEASURED) || \
		{ touch .pytest_cache/$@.failed; exit 1; }

test-measured: $(DEV) $(BUILT)
	PYTHONPATH=$(CURDIR) HYPOTHESIS_PROFILE=fast COVERAGE_CORE=ctrace pytest $(addprefix --ignore=,$(UNMEASURED)) \
		--cov --cov-append --cov-report=term-missing:skip-covered $(QUICK) >.pytest_cache/$@.log 2>&1 || \
		touch .pytest_cache/$@.failed
	@cat .pytest_cache/$@.log; [ ! -e .pytest_cache/$@.failed ]

test-again:
	@[ -e .pytest_cache/test-plain.failed ] || [ -e .pytest_cache/test-measured.failed ]
	@[ ! -e .pytest_cache/test-plain.failed ] || \
		PYTHONPATH=$(CURDIR) .ci/alone .pytest_cache/test-plain $(UNMEASURED)
	@[ ! -e .pytest_cache/test-measured.failed ] || \
		PYTHONPATH=$(CURDIR) .ci/alone .pytest_cache/test-measured $(addprefix --ignore=,$(UNMEASURED))

test-full: $(DEV) $(BUILT) $(SANITIZED)  ## the long tier: everything, deep Hypothesis, then ASan and UBSan
	HYPOTHESIS_PROFILE=deep pytest -n $(CPUS) --dist loadfile --timeout=1800 -m "not clients" $(PYTEST_ARGS)
	AGW_HOT_LIB=build/sanitize/lib PYTHONPATH=$(CURDIR)/build/sanitize/lib:$(CURDIR) PYTHONMALLOC=malloc \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		PYTHONSAFEPATH=1 $(BIN)/python -m pytest -q -p no:cacheprovider --import-mode=importlib --timeout=900 tests/hot \
		--ignore tests/edge/test_supervisor.py tests/edge

# The tools want a newer Node than most systems have: it is one of the packages.
$(CLIENTS): tests/clients/package.json tests/clients/package-lock.json tests/clients/requirements.lock
	@mkdir -p build/clients
	cp tests/clients/package.json tests/clients/package-lock.json build/clients/
	npm install --prefix build/clients --no-audit --no-fund --loglevel=error
	$(PYTHON) -m venv --clear build/clients/python
	build/clients/python/bin/python -m pip install --quiet --no-deps --require-hashes -r tests/clients/requirements.lock
	@touch $@

clients: $(DEV) $(BUILT) $(CLIENTS)  ## coding tools and SDKs from npm, unmodified, against the gateway (needs npm)
	pytest -q --no-header -p no:cacheprovider -m clients tests/clients $(PYTEST_ARGS)

# The page's own test comes last: what has failed is told by the rows.
faults: $(DEV) $(BUILT)  ## every fault on both lanes; the results go to docs/reliability.md
	FAULTS_RESULTS=build/faults.json pytest -q --no-header -p no:cacheprovider -n $(CPUS) --dist loadgroup --timeout=300 \
		tests/faults/test_faults.py tests/faults/test_processes.py $(PYTEST_ARGS)
	python -m tests.faults.table build/faults.json docs/reliability.md
	pytest -q --no-header -p no:cacheprovider tests/faults/test_page.py

soak: $(DEV) $(BUILT)  ## two workers under load with random faults for SECONDS (SEED=1); ends with a report
	python -m tests.faults.soak $(SECONDS) $(SEED)

# The first round reaches every property in seconds; the deep ones after it take their time over each.
fuzz: $(DEV) $(BUILT)  ## property tests over and over, then the reader of heads against two others, FUZZ_SECONDS each
	@end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); round=1; profile=default; \
	while [ $$(date +%s) -lt $$end ]; do \
		echo "round $$round"; \
		code=0; HYPOTHESIS_PROFILE=$$profile timeout --preserve-status -s INT $$(( end - $$(date +%s) + 1 )) \
			pytest -q --no-header --timeout=0 -m hypothesis -x tests/hot || code=$$?; \
		if [ $$code -eq 2 ] && [ $$(date +%s) -ge $$end ]; then break; fi; \
		[ $$code -eq 0 ] || exit $$code; \
		round=$$(( round + 1 )); profile=deep; \
	done; echo "$(FUZZ_SECONDS) s without a counterexample"
	python -m tests.fuzz.fuzz_http1 $(FUZZ_SECONDS)

coverage:  ## the coverage of the last `make test` as HTML
	PYTHONPATH=$(CURDIR) $(BIN)/coverage html --quiet --directory build/coverage --fail-under=0
	@echo "build/coverage/index.html"

bench: $(DEV) $(BUILT)  ## micro-benchmarks and the cold start; tables go to bench/results
	@mkdir -p build/bench
	pytest bench/hot -o addopts="" -o python_files="bench_*.py" -p no:cacheprovider --benchmark-only -q \
		--benchmark-json=build/bench/hot.json
	python -m bench.hot_table build/bench/hot.json bench/results/hot.md
	python -m bench.startup

bench-proxies: $(DEV) $(BUILT)  ## agw beside other proxies, as whole processes (ARGS="--quick")
	python -m bench.proxies.compare $(ARGS)

smoke: $(BUILT)  ## start the gateway, ask it with curl plain and streamed, stop it
	@.ci/smoke $(BIN)/agw

# --- the rest -----------------------------------------------------------------------------------------------------

docker-build:  ## the container image (IMAGE=agw:latest EXTRAS=bedrock,otel,sql,vertex)
	docker build --build-arg EXTRAS=$(EXTRAS) --tag $(IMAGE) .

lock: $(MADE)  ## pin all requirements anew, with hashes
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --extra agents --extra cache --extra redis --extra tokens pyproject.toml -o requirements.lock \
		--custom-compile-command "make lock"
	uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --extra all pyproject.toml --group dev \
		-c requirements.lock -o requirements-dev.lock --custom-compile-command "make lock"
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
		uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 - \
		-c requirements-dev.lock -o requirements-build.lock --custom-compile-command "make lock"
	uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 tests/clients/requirements.txt \
		-o tests/clients/requirements.lock --custom-compile-command "make lock"

clean:  ## away with all that was made, the environment included
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .benchmarks .hypothesis
	find agw_proxy ext -name '*.so' -delete -o -name '*.c' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

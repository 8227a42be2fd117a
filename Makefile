# Everything runs in .venv, made on first use from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard snakepit tests examples benchmarks compare docs/conf.py)
PYTEST_ARGS ?=
# Tests wait for processes more than they compute: one run more than there are CPUs.
JOBS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 1)")
COMPARE_ARGS = $(if $(ONLY),--only $(ONLY)) $(if $(CONTENDERS),--contenders $(CONTENDERS))
BENCH_ARGS = $(if $(ONLY),--only $(ONLY)) $(if $(CONTENDERS),--contenders $(CONTENDERS)) \
	$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(UPDATE),--update) $(if $(STRICT),--strict)
# Workers start by imports: without compiled modules every start would take several times as long.
unexport PYTHONDONTWRITEBYTECODE
# The library is strict without exception, which pyproject.toml sees to; tests misuse types on purpose.
RELAXED := --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls \
	--allow-untyped-decorators --allow-any-generics --no-warn-unreachable --no-warn-return-any \
	--no-warn-unused-ignores $(addprefix --disable-error-code=,misc var-annotated index valid-type \
	abstract attr-defined arg-type import-untyped list-item)
# pytest puts each folder of tests on sys.path; mypy is told so.
empty :=
TEST_PATH := .:tests:$(subst $(empty) $(empty),:,$(filter-out %/__pycache__,$(patsubst %/,%,$(wildcard tests/*/))))

.DEFAULT_GOAL := help
.PHONY: help demo test simulate chaos storm check docs ladder doctest unit test-pythons clean thorough protos interop
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | grep -vE '^($(subst $(empty) $(empty),|,$(strip $(or $(ABSENT),none)))):' | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

# One stamp per set of extras, as dev or dev,docs, and for each of them; a newer pyproject.toml or
# constraints.txt makes it stale.
comma := ,
$(VENV)/.has-%: pyproject.toml constraints.txt .ci/install
	@echo "==> installing [$*] into $(VENV)"
	@.ci/install $(VENV) $(PYTHON) $*
	@touch $@ $(addprefix $(VENV)/.has-,$(subst $(comma), ,$*))

# Node and what the JavaScript worker and client need; no stamp where Node cannot be had.
NODE_EXAMPLES := examples/workers/node examples/clients/node
$(VENV)/.has-node: $(NODE_EXAMPLES:=/package.json) .ci/node
	@echo "==> installing what $(NODE_EXAMPLES) need"
	@.ci/node $@

demo: $(VENV)/.has-demo  ## see a pool of workers do a real job
	@echo "==> the digits demo: two workers, one classifier, 1797 scanned digits"
	@$(BIN)/python -m examples.digits

test: $(VENV)/.has-dev,docs $(VENV)/.has-node  ## everything that must pass: static checks, doctests, tests, coverage gate
	@# Side by side as well. The doctests are in the foreground: they have to know Ctrl+C.
	@mkdir -p build; $(MAKE) check & checks=$$!; \
	$(MAKE) doctest > build/doctest.log 2>&1; tested=$$?; \
	wait $$checks; checked=$$?; cat build/doctest.log; \
	[ "$$checked$$tested" = 00 ]
	@$(MAKE) unit
	@echo "==> all passed; tests that were skipped, and why:"
	@cat build/skips.txt

unit: $(VENV)/.has-dev $(VENV)/.has-node
	@echo "==> tests: unit and real processes, on trio and asyncio, workers measured"
	@mkdir -p build && rm -f build/.coverage* build/skips.txt
	@COVERAGE_FILE=build/.coverage $(BIN)/coverage run -m pytest -q -n $(JOBS) --dist worksteal --skips-file=build/skips.txt $(PYTEST_ARGS)
	@echo "==> coverage gate"
	@COVERAGE_FILE=build/.coverage $(BIN)/coverage combine -q
	@COVERAGE_FILE=build/.coverage $(BIN)/coverage report

interop: $(VENV)/.has-dev $(VENV)/.has-node  ## foreign gRPC clients against a worker of ours; part of the tests too
	@echo "==> interop"
	@$(BIN)/python -m pytest -q tests/interop

simulate: $(VENV)/.has-dev  ## pools in virtual time, run after run; SEED= to begin with, RUNS=0 until Ctrl+C
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) --runs $(or $(RUNS),0)

chaos: $(VENV)/.has-dev  ## real pools under random kills, stops, cancels and full pipes; SEED= to begin with, SECONDS=60
	@$(BIN)/python -m tests.chaos.chaos_rounds $(if $(SEED),--seed $(SEED)) --seconds $(or $(SECONDS),60)

storm: $(VENV)/.has-dev  ## 100 kills in 10 seconds, of pools under full load; SEED= chooses the victims
	@STORM_SECONDS=10 STORM_SEED=$(or $(SEED),0) $(BIN)/python -m pytest -q tests/pool/test_storm.py

protos: $(VENV)/.has-dev  ## make snakepit/grpc/_generated from protos/
	@echo "==> protos"
	@.ci/protos $(BIN)

check: $(VENV)/.has-dev  ## static checks: format, lint, async rules, types, spelling
	@echo "==> format"
	@$(BIN)/ruff format --check -q $(SOURCES) || { echo "run: $(BIN)/ruff format $(SOURCES)"; exit 1; }
	@echo "==> lint and types"
	@$(BIN)/ruff check -q $(SOURCES)
	@.ci/protos $(BIN) --check
	@mkdir -p build
	@# Side by side: each of them uses one CPU.
	@# flake8 is slow: it is shown what has async functions, which alone its rules are about.
	@$(BIN)/flake8 $$(grep -rl --include='*.py' --exclude-dir=_generated 'async def' snakepit) & lint=$$!; \
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=. pyright --verifytypes snakepit --ignoreexternal > build/types.log 2>&1 & public=$$!; \
	MYPYPATH=$(TEST_PATH) $(BIN)/mypy $(RELAXED) $(SOURCES); typed=$$?; \
	wait $$lint; linted=$$?; \
	wait $$public || { cat build/types.log; exit 1; }; \
	[ "$$linted$$typed" = 00 ]
	@grep "completeness score" build/types.log
	@echo "==> spelling"
	@$(BIN)/codespell

docs: $(VENV)/.has-docs doctest  ## the documentation as HTML, warnings are errors
	@echo "==> documentation"
	@$(BIN)/python -m sphinx -q -W -n --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

doctest: $(VENV)/.has-docs
	@echo "==> doctests of the documentation"
	@$(BIN)/python -m sphinx -q -W -n --keep-going -b doctest docs docs/_build/doctest

# Only a tree that has benchmarks offers to run them. ONLY=roundtrip,throughput CONTENDERS=snakepit
# ROUNDS=3 choose; LARGE=1 adds Ray and Dask, several hundred MiB; UPDATE=1 rewrites the figures of
# docs/benchmarks.md; STRICT=1 fails on a missed gate.
ifneq ($(wildcard benchmarks/__main__.py),)
.PHONY: bench
bench: $(VENV)/.has-bench $(if $(LARGE),$(VENV)/.has-bench-large)  ## measure what calls cost, against other pools; see docs/benchmarks.md
	@echo "==> benchmarks"
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)
else
ABSENT := bench
endif

# Likewise. ONLY=kill,cancel CONTENDERS=snakepit,loky choose; a whole run rewrites the tables.
ifneq ($(wildcard compare/__main__.py),)
.PHONY: compare
compare: $(VENV)/.has-compare  ## what pools of processes do when things go wrong; see docs/compare.md
	@echo "==> the same mishaps for everybody"
	@$(BIN)/python -m compare $(COMPARE_ARGS)
else
ABSENT += compare
endif

# ONLY=… chooses, as pytest's -k does. Some of these take minutes: the watchdog of all tests must not show
# their stacks meanwhile, which can crash a process that runs.
thorough: $(VENV)/.has-dev  ## the long runs of which make test runs a share: seeds, signals, ways to leave a pool
	@$(BIN)/python -m pytest -q -n $(JOBS) -o faulthandler_timeout=0 --thorough -m share $(if $(ONLY),-k '$(ONLY)') $(PYTEST_ARGS)

# UPDATE=1 rewrites the table of docs/guarantees.md.
ladder: $(VENV)/.has-dev  ## at which step of the stop ladder each kind of stuck call ends
	@$(BIN)/python -m benchmarks.stuck $(if $(UPDATE),--update)

test-pythons: $(VENV)/.has-node  ## the tests on every CPython >= 3.11 of this machine
	@.ci/test-pythons $(PYTEST_ARGS)

clean:  ## remove what the other targets made
	@echo "==> removing environments, caches and builds"
	@rm -rf .venv .venv-* $(NODE_EXAMPLES:=/node_modules) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each target sets up what it needs in .venv; the second time that costs nothing.
FITS   := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# 3.12 where there is a whole one, be it only among pyenv's versions: of those that Triton's wheel
# is for it is the one that counts covered lines at no cost.
BEST   := import ensurepip, sqlite3, ssl, sys; sys.exit(sys.version_info[:2] != (3, 12))
PYENV  := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
PYTHON ?= $(shell \
	for p in python3 python3.12 $(wildcard $(PYENV)/versions/3.12.*/bin/python3); do \
		$$p -c '$(BEST)' 2>/dev/null && { echo $$p; exit; }; done; \
	for p in python3 python3.11 python3.13; do \
		$$p -c '$(FITS)' 2>/dev/null && { echo $$p; exit; }; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
# With Triton where its wheel can be had; STACK=onnx leaves it out, and takes the newest NumPy.
STACK  ?= embedded
EXTRAS := $(STACK),dev,examples,nkeys,s3,uvloop
TESTS  ?= tests
# More processes than there are cores, as most tests wait; few, as each has servers of its own, which
# take 3 GB together.
JOBS   ?= $(shell awk -v cores=$$(getconf _NPROCESSORS_ONLN) '/^MemAvailable/ { \
	fit = int($$2 / 3e6); most = cores < 4 ? cores + 5 : 8; \
	print fit < 1 ? 1 : fit < most ? fit : most }' /proc/meminfo || echo 4)
# Of the whole suite alone: a part of it covers a part.
COVER  := $(if $(filter tests,$(TESTS)),--cov=mqinfer --cov-report=term:skip-covered)
# From 3.12 on Python can tell coverage of a line once; before, and by default, each time it runs,
# which doubles the time of the tests' own processes.
TELLS  := import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")

.PHONY: help setup demo demo-replay demo-requests demo-taskqueue demo-mlwatch demo-search test lint format docs faults faults-joins faults-requests faults-states faults-long bench bench-all first-hour monitor-study clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## a virtual environment with everything but the benchmarks' rivals

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || { echo "this needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

demo: setup  ## the plant pipeline on the embedded stack, with its report and chart
	$(BIN)/python -m examples.plants.demo

demo-requests: setup  ## a small backend: eight people at a time, kills, a page in a headless browser
	$(BIN)/python -m examples.requests.demo

demo-replay: setup  ## a model upgrade: 10,000 leaves replayed beside live ones, compared, promoted
	$(BIN)/python -m examples.plants.demo_replay

demo-taskqueue: setup  ## model classes from a file, asked in Python, JavaScript, a browser, and by 100,000 rows
	$(BIN)/python -m examples.taskqueue.demo

demo-mlwatch: setup  ## photographs at a rate, the world changes, and an alarm rings that says what to do
	$(BIN)/python -m examples.mlwatch.demo

demo-search: setup  ## image search by two models, in shards: killed, scaled, rolled out while somebody searches
	$(BIN)/python -m examples.search.demo

test: setup  ## the tests, against the real servers; a part of them: TESTS=tests/flow
	@# Once, and not by each of the many processes that start, where PYTHONDONTWRITEBYTECODE is set.
	$(BIN)/python -m compileall -q -j 0 mqinfer examples stages tests/support
	COVERAGE_CORE=$$($(BIN)/python -c '$(TELLS)') $(BIN)/python -m pytest $(TESTS) -n $(JOBS) --dist loadfile --no-loadscope-reorder $(COVER)

# Without its word on a next major version of MkDocs.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: setup  ## ruff, mypy, vulture, and the site of the documentation, strictly
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture
	$(MKDOCS)

.PHONY: docs
docs: setup  ## the site of the documentation, into build/site: open its index.html
	$(MKDOCS)
	@echo build/site/index.html

ASKING := $(BIN)/python -m tests.faults.asking --requests 20000 --jobs 20 --faults 100 --json .cache/faults-requests.json

faults: setup  ## 50,000 inputs under 100 faults, a cluster losing leaders, then 20,000 requests: half an hour
	$(BIN)/python -m tests.faults --inputs 50000 --faults 100 --json .cache/faults.json --charts .cache; \
		code=$$?; $(ASKING) && exit $$code

faults-joins: setup  ## 2,500 roots of a join, 60,000 messages, under 50 kills and 5 of the server
	$(BIN)/python -m tests.joins.kills --roots 2500 --kills 50 --server-kills 5

faults-requests: setup  ## its second half: 20,000 requests to gateways and 20 jobs under 100 faults
	$(ASKING)

faults-long: setup  ## 300,000 inputs under 500 faults, with the memory of every process: an hour or two
	$(BIN)/python -m tests.faults --inputs 300000 --faults 500 --cluster-inputs 20000 --cluster-faults 60 --json .cache/faults-long.json --charts .cache

faults-states: setup  ## 50,000 messages through a stage that remembers, under 50 kills: some minutes
	$(BIN)/python -m tests.faults.states --messages 50000 --kills 50

format: setup  ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup $(VENV)/.bench  ## mqinfer beside its limits and its rivals: under 25 minutes
	$(BIN)/python -m benchmarks

bench-all: setup $(VENV)/.bench  ## every row there is: also scale, replay, servers, blobs, cost, decoders, streams
	$(BIN)/python -m benchmarks --all

first-hour:  ## a wheel alone, and what the README of each template of `mqinfer init` says: some minutes
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/first_hour.py --json .cache/first-hour.json

monitor-study: setup  ## 3,000 simulated months without a change, and 1,800 with one: how soon and how often it alarms
	$(BIN)/python -m benchmarks.monitor --json .cache/monitor-study.json --chart docs/monitor-study.png

$(VENV)/.bench: pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),bench]'
	touch $@

clean:  ## remove what was made here, but not the virtual environment
	rm -rf .mqinfer .cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*

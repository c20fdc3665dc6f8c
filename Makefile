# Every target works on a fresh checkout: what it needs, it makes.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The tests start hundreds of interpreters; without it, each would compile the packages again.
unexport PYTHONDONTWRITEBYTECODE

bin := .venv/bin
stamp := .venv/.stamp
pytest := $(bin)/python -m pytest
# One more than the cores of a small machine hides waiting; more only crowds it.
workers ?= 3
# Run by themselves, and once: what else runs mustn't count as their packages' coverage.
covered := tests/unit/protocol tests/unit/core

.PHONY: help venv demo lint format test test-unit test-fault test-containers coverage bench lock clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

venv: $(stamp) ## the environment in .venv, from the locked requirements

$(stamp): requirements/dev.txt pyproject.toml
	python=$$(scripts/system-packages python); \
	[ -x $(bin)/python ] || "$$python" -m venv .venv
	$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(stamp)

demo: venv ## a broker, the service and a device on this machine, in one command
	$(bin)/muster demo

lint: venv ## style, types and the direction of imports
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

format: venv ## rewrite what ruff can
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

test: venv ## everything a change must pass, except the slow suite
	scripts/system-packages tests
	$(MAKE) lint
	$(MAKE) coverage
	$(pytest) tests -n $(workers) --dist worksteal --ignore=tests/fault --ignore=tests/containers \
	  $(addprefix --ignore=,$(covered))

test-unit: venv ## the inner loop: no brokers, no databases
	$(pytest) tests/unit -q

test-fault: venv ## kills, full disks, broken networks; a quarter of an hour on two cores
	scripts/system-packages tests
	$(pytest) tests/fault -n $(workers) --dist loadfile

test-containers: venv ## compose.yaml built from nothing: the main job in containers, each killed in the middle of it
	$(pytest) tests/containers --timeout=900

coverage: venv ## the pure packages are covered by their own unit tests, lines and branches
	$(pytest) $(covered) -n $(workers) -q --cov=broker.protocol --cov=broker.core --cov-branch \
	  --cov-report=term-missing --cov-fail-under=95

bench: venv ## measurements; run them on a quiet machine
	scripts/system-packages tests
	$(bin)/python -m tests.bench

# One resolution for every supported Python and platform; hashes, and no word of where packages came from.
# With their extras: pip takes a pin without one for another requirement, and the newest release for that.
compile = $(bin)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-header --no-annotate --no-strip-extras pyproject.toml

lock: venv ## resolve requirements/*.txt again
	[ -x $(bin)/uv ] || $(bin)/python -m pip install --quiet uv
	$(compile) $(if $(upgrade),--upgrade) --extra server --group dev -o requirements/dev.txt
	$(compile) --extra server -c requirements/dev.txt -o requirements/server.txt
	$(compile) -c requirements/dev.txt -o requirements/base.txt
	$(subst pyproject.toml,--group build,$(compile)) -c requirements/dev.txt -o requirements/build.txt
	! grep -nE '://|^-' requirements/*.txt

clean: ## remove what make made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* dist

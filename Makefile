PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 3000

.PHONY: help setup demo demo-all dev test test-browser test-faults test-games test-long test-production lint bench audit clean
.DEFAULT_GOAL := help

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 27

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY) ## Create .venv with pinned dependencies

demo: $(READY) ## Run the main job once on samples (or PHOTOS=~/Pictures)
	$(BIN)/image-pipeline demo $(if $(PHOTOS),--photos '$(patsubst ~%,$(HOME)%,$(PHOTOS))')

demo-all: $(READY) ## The same, then every optional part: intake, mockups, mirror, cleanup, report
	$(BIN)/image-pipeline demo --all $(if $(PHOTOS),--photos '$(patsubst ~%,$(HOME)%,$(PHOTOS))')

dev: $(READY) ## Run bucket, Dagster UI, sensors and schedules until Ctrl-C
	@$(BIN)/image-pipeline dev --port $(PORT)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest

test-browser: $(READY) ## Look at the pages in a real browser (Debian: chromium)
	$(BIN)/python -m pytest -m browser image_pipeline_tests/browser

test-faults: $(READY) ## Kill, cut off, fill up, take away: every kind of fault once
	$(BIN)/python -m pytest -m 'faults and not slow' image_pipeline_tests

test-games: $(READY) ## Play 1,000 games of uploads, crashes and cleanups against each other
	IMAGE_PIPELINE_SEQUENCES=1000 $(BIN)/python -m pytest -m faults --timeout 3000 \
		image_pipeline_tests/faults/test_housekeeping_machine.py

test-long: $(READY) ## The same at random moments, for more than an hour
	$(BIN)/python -m pytest -m slow image_pipeline_tests/faults

test-production: $(READY) ## Start what docker-compose.yml starts, as plain processes, and break it
	$(BIN)/python -m pytest -m slow image_pipeline_tests/production

lint: $(READY) ## Check style, types and the rules between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## Run the benchmarks (PHOTOS=dir for your own)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(if $(PHOTOS),--photos '$(patsubst ~%,$(HOME)%,$(PHOTOS))')

audit: $(READY) ## Look up known vulnerabilities of the pinned packages and write a bill of materials
	$(PYTHON) -m venv .data/audit
	.data/audit/bin/python -m pip install --quiet --disable-pip-version-check \
		'pip-audit==2.10.1' 'cyclonedx-bom==7.5.0'
	.data/audit/bin/cyclonedx-py environment --output-reproducible --of JSON \
		--output-file .data/sbom.cdx.json $(BIN)/python
	@echo "Bill of materials: .data/sbom.cdx.json"
	.data/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean: ## Remove .venv and everything under .data
	rm -rf $(VENV) .data

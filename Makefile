# make demo | test | check | serve | docs | bench | tabletop. The first of them makes .venv; nothing outside of this folder is touched.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
KERNELS := .venv/.kernels

.PHONY: demo test check serve docs bench tabletop format
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## the embedded models at work: demo/contact_sheet.png
	$(BIN)/infuse demo --out demo

$(KERNELS): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[kernels]'
	touch $@

test: $(STAMP) $(KERNELS)  ## every test, the slow ones too
	$(BIN)/python -m pytest --numprocesses auto

# Types are checked beside the tests, on one thread: node's others make it a quarter dearer. Tests stay compiled, and each
# worker has a half of them, so that neighbours share what their module made.
check: $(STAMP)  ## before every commit, two minutes: format, lint, types, house rules, fast tests
	$(BIN)/ruff format --check infuse tests examples benchmarks
	$(BIN)/ruff check infuse tests examples benchmarks
	NODE_OPTIONS="--v8-pool-size=1 --max-semi-space-size=64" $(BIN)/pyright & types=$$!; \
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal; tests=$$?; \
	wait $$types && exit $$tests

serve: $(STAMP)  ## the embedded models over HTTP, on this machine: http://127.0.0.1:7860/docs
	$(BIN)/infuse serve

docs: $(STAMP)  ## the pages and the reference, in site/: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)  ## infuse beside diffusers on this processor, twenty minutes: benchmarks/results/cpu.json, docs/images
	$(BIN)/python -m benchmarks --plots docs/images

tabletop: $(STAMP)  ## train the embedded models from nothing
	$(BIN)/infuse train tabletop

format: $(STAMP)
	$(BIN)/ruff check --fix infuse tests examples benchmarks
	$(BIN)/ruff format infuse tests examples benchmarks

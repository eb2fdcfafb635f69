# make test        all tests but the slow ones
# make test-slow   the slow ones too
# make million     the memory that `detector valid` takes over a list of a million images; ten minutes
# make fuzz        damaged files of every kind: read, or refused in one line; some minutes
# make lint        ruff and mypy, as CI runs them; on Python 3.11 or newer
# make mutants     changes the source in one place at a time: does a test notice? Hours; MUTANTS="FILES" for some files
# make docs        the documentation as a site, in build/site; a warning is an error
# make quickstart  from made data to a trained, exported, scored detector, under runs/quickstart
#
# Each first makes the virtual environment .venv with the versions of constraints.txt.

PYTHON ?= python3
BIN = .venv/bin
# Tests run in as many processes as there are cores, and 4 at the most: each holds a torch of its own.
PROCESSES = -n auto --maxprocesses 4 --dist worksteal

.PHONY: test test-slow million fuzz lint mutants docs quickstart clean

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
# They ask for opencv-python, which takes the place of opencv-python-headless: their other needs are in the test extra.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackers supervision
	touch $@

test: .venv/installed
	$(BIN)/python -m pytest $(PROCESSES)

test-slow: .venv/installed
	$(BIN)/python -m pytest -m "slow or not slow"

million: .venv/installed
	DARKNET_COMPAT_IMAGES=1000000 $(BIN)/python -m pytest -m slow -s tests/detect/test_validate.py

fuzz: .venv/installed
	$(BIN)/python -m pytest -m slow tests/fuzz --hypothesis-show-statistics

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,mutation]"
	$(BIN)/python tools/mutants.py $(MUTANTS)

docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo open build/site/index.html

quickstart: .venv/installed
	$(BIN)/python tools/quickstart.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache

# make run    the three notebooks, end to end, on photographs that come with scikit-image
# make test   the tests
# make lab    JupyterLab on the notebooks
# BEGIN SOLUTION NO PROMPT
# make handout    the student edition, for instructors
# END SOLUTION
#
# Each makes the environment .venv first, if it is not there. PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
BIN = .venv/bin
READY = .venv/.ready

.PHONY: run test lab clean

run: $(READY)
	$(BIN)/python create_data_lists.py --demo
# BEGIN SOLUTION NO PROMPT
	$(BIN)/python -m kit.tools.run_notebooks
# END SOLUTION
# BEGIN PROMPT
#	$(BIN)/python -m kit.tools.run_notebooks --inplace
# END PROMPT

test: $(READY)
	$(BIN)/python -m pytest

lab: $(READY)
	$(BIN)/jupyter lab

# BEGIN SOLUTION NO PROMPT
.PHONY: handout lint messages notebooks benchmark recipes lowest

handout: $(READY)
	$(BIN)/python -m teacher handout

# for developers
lint: $(READY)
	$(BIN)/ruff check

# what is new to be translated, into the catalogues of translations
messages: $(READY)
	$(BIN)/python -m teacher.translation

notebooks: $(READY)
	$(BIN)/python create_data_lists.py --demo
	$(BIN)/python -m kit.tools.run_notebooks --inplace

benchmark: $(READY)
	$(BIN)/python -m kit.tools.benchmark

recipes: $(READY)
	$(BIN)/python -m kit.tools.compare_recipes

# the tests with the lowest versions that requirements.txt allows
lowest:
	$(PYTHON) -m venv .venv-lowest
	sed 's/>=/==/' requirements.txt > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --requirement .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pytest

# END SOLUTION
clean:
	rm -rf .venv .venv-lowest data/lists runs results .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --requirement requirements.txt
	touch $(READY)

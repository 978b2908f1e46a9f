# Needs make, sh, git and a Python >= 3.11 with pip and venv; everything else is set up inside this folder.
.POSIX:

PY3 = .venv/bin/python
PY2 = .venv-2.11/bin/python
# All but what is a stage of its own: the browser needs Chromium and Airflow 3.3; wheel and files need one look only.
SUITE = tests --ignore=tests/browser --ignore=tests/packaging/test_wheel.py --ignore=tests/packaging/test_tree.py
# In two parts, so that they can run beside each other.
PART_1 = tests/airflow tests/triggerer tests/webhook tests/provider
PART_2 = $(SUITE) $(PART_1:%=--ignore=%)

help:
	@echo "make demo      run the example DAGs through a real Airflow against a local FACEKI (about two minutes)"
	@echo "make ui        a whole Airflow with the provider, a Connection and a local FACEKI, to click through"
	@echo "make test      every check: lint, types, import rules, Airflow 3.3 and 2.11, the built wheel, a browser"
	@echo "make lint      only the checks that run nothing"
	@echo "make coverage  the suite on Airflow 3.3, and which lines and branches it never took (in its own process)"
	@echo "make bench     the numbers, each beside a peer or a floor measured in the same run"
	@echo "make dist      build the sdist and the wheel into dist/"
	@echo "make setup     only the virtual environment, .venv"
	@echo "make clean     remove everything that was made here"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints/airflow-3.3.txt
	@.ci/make-venv .venv constraints/airflow-3.3.txt 3.14 build test lint browser

# Airflow 2.11 does not run on Python 3.13: where nothing older is installed, its stage is left out and says so.
.venv-2.11/.ready: pyproject.toml constraints/airflow-2.11.txt
	@if .ci/find-python 3.12 >/dev/null; then .ci/make-venv .venv-2.11 constraints/airflow-2.11.txt 3.12 build test; fi

demo: .venv/.ready
	@$(PY3) -m demo.run_demo

ui: .venv/.ready
	@$(PY3) -m demo.run_ui

bench: .venv/.ready
	@$(PY3) benchmarks/run.py

dist: .venv/.ready
	@rm -rf dist && $(PY3) -m hatchling build -d dist

lint: .venv/.ready
	@status=0; set -x; \
	$(PY3) -m ruff check -q . || status=1; \
	$(PY3) -m ruff format -q --diff . || status=1; \
	$(PY3) -m mypy || status=1; \
	.venv/bin/lint-imports --no-logo || status=1; \
	exit $$status

coverage: .venv/.ready
	@rm -f .coverage .coverage.*; status=0; $(PY3) -m coverage run -m pytest -q $(SUITE) || status=1; \
	$(PY3) -m coverage combine -q; $(PY3) -m coverage report; exit $$status

# Three stages at a time on two cores, for a suite waits more than it computes; those that take longest come first. Every
# stage runs, whatever another one said; what each printed stays in .work/.
test:
	@mkdir -p .work && rm -f .work/summary
	@$(MAKE) -s -j2 .venv/.ready .venv-2.11/.ready
	@older=; if test -e .venv-2.11/.ready; then older="stage-2.11-2 stage-2.11-1"; \
	else echo "skipped  suite on Airflow 2.11: it needs a Python 3.11 or 3.12, and none is here" >>.work/summary; fi; \
	status=0; $(MAKE) -s -k -j3 stage-3.3-2 stage-3.3-1 $$older stage-browser stage-wheel stage-lint || status=1; \
	echo; cat .work/summary; exit $$status

stage-lint:
	@.ci/stage "lint, types, import rules" $(MAKE) -s lint

stage-3.3-1:
	@.ci/stage "suite on Airflow 3.3, part 1" .ci/suite 3.3-1 $(PY3) -m pytest -q $(PART_1)

stage-3.3-2:
	@.ci/stage "suite on Airflow 3.3, part 2" .ci/suite 3.3-2 $(PY3) -m pytest -q $(PART_2)

stage-2.11-1:
	@.ci/stage "suite on Airflow 2.11, part 1" .ci/suite 2.11-1 $(PY2) -m pytest -q $(PART_1)

stage-2.11-2:
	@.ci/stage "suite on Airflow 2.11, part 2" .ci/suite 2.11-2 $(PY2) -m pytest -q $(PART_2)

stage-wheel:
	@.ci/stage "wheel in a fresh environment" $(PY3) -m pytest -q tests/packaging/test_wheel.py tests/packaging/test_tree.py

stage-browser:
	@if .ci/find-chromium; then .ci/stage "form and whole loop in Chromium" .ci/suite browser $(PY3) -m pytest -q tests/browser; \
	else echo "skipped  form and whole loop in Chromium: no Chromium, and only root can install it" >>.work/summary; fi

clean:
	rm -rf .venv .venv-2.11 .work dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

.PHONY: help setup demo ui bench dist lint coverage test clean \
	stage-lint stage-3.3-1 stage-3.3-2 stage-2.11-1 stage-2.11-2 stage-wheel stage-browser

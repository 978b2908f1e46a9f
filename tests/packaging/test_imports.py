# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cost and side effects of imports. They are measured in separate processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import airflow_provider_faceki

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PACKAGE = Path(airflow_provider_faceki.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
#: Modules of the core of a batch, as the import contract in ``pyproject.toml`` lists them.
BATCH_CORE = next(
    contract["source_modules"]
    for contract in CONTRACTS["contracts"]
    if contract["name"].startswith("The core of a batch")
)
AIRFLOW_AND_HTTP = ("airflow", "aiohttp", "fsspec", "requests", "urllib3")
HEAVY = ("requests", "urllib3", "tenacity", "cryptography")
#: Modules of the package that only a running task needs.
ONLY_RUNNING = tuple(
    f"airflow_provider_faceki.{name}"
    for name in ("storage", "lineage", "resize", "api.uploads", "api.models", "api.client", "batch.manifest")
)


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


WARNINGS = """
import importlib, json, sys, warnings
package, found = sys.argv[1], []
for name in sys.argv[2:]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module(name)
    # A deprecated import is blamed on the importer; what Airflow's modules do to each other is theirs.
    found += [f"{name}: {w.category.__name__}: {w.message}" for w in caught if w.filename.startswith(package)]
print(json.dumps(found))
"""


def test_no_module_warns_when_imported() -> None:
    importable = [name for name in MODULES if not name.endswith("__main__")]
    assert len(importable) > 20
    assert json.loads(_python(WARNINGS, str(PACKAGE), *importable)) == []


NEWLY_IMPORTED = """
import importlib, json, multiprocessing, sys
# What Airflow itself imports for any operator of any provider is not the provider's doing.
from airflow.providers.common.compat.sdk import BaseBranchOperator, BaseHook, BaseOperator, BaseSensorOperator, conf
from airflow.triggers.base import BaseTrigger
before = set(sys.modules)
def newly_imported(name):
    importlib.import_module(name)
    return sorted(set(sys.modules) - before)
# Each module is imported in a process without other modules of the package. The process is forked, because importing
# Airflow again would take longer than the rest.
with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    names = sys.argv[1:]
    print(json.dumps(dict(zip(names, pool.map(newly_imported, names, chunksize=1)))))
"""
#: Modules that DAG files import.
DAG_MODULES = [
    f"airflow_provider_faceki.{name}"
    for name in (
        "operators.faceki",
        "operators.images",
        "operators.reports",
        "operators.verification",
        "operators.batch",
        "operators.branch",
        "sensors.faceki",
        "triggers.faceki",
        "hooks.faceki",
        "links.faceki",
    )
]


@pytest.fixture(scope="module")
def newly_imported() -> dict[str, list[str]]:
    """Names of the modules that the import of each of `DAG_MODULES` adds to a process."""
    return dict(json.loads(_python(NEWLY_IMPORTED, *DAG_MODULES)))


@pytest.mark.parametrize("module", DAG_MODULES)
def test_parsing_a_dag_imports_nothing_heavy(module: str, newly_imported: dict[str, list[str]]) -> None:
    brought = newly_imported[module]
    assert module in brought
    assert [name for name in brought if name.partition(".")[0] in HEAVY or name in ONLY_RUNNING] == []


IMPORTED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        pytest.param("airflow_provider_faceki", ("airflow", *HEAVY), id="the package"),
        pytest.param("airflow_provider_faceki.get_provider_info", ("airflow", *HEAVY), id="the metadata"),
        pytest.param("airflow_provider_faceki.api", ("airflow", *HEAVY), id="the import of the API package"),
        pytest.param(
            "airflow_provider_faceki.sandbox",
            ("airflow", "starlette", "uvicorn"),
            id="the import of the sandbox",
        ),
        pytest.param(
            "airflow_provider_faceki.sandbox.pytest_plugin",
            ("airflow", "starlette", "uvicorn"),
            id="the pytest plugin",
        ),
    ],
)
def test_importing_a_module_loads_no_heavy_library(module: str, absent: tuple[str, ...]) -> None:
    loaded = {name.partition(".")[0] for name in json.loads(_python(IMPORTED, module))}
    assert loaded & set(absent) == set()


WITHOUT_AIRFLOW = """
import sys
sys.modules["airflow"] = None
import airflow_provider_faceki.api as api
for name in dir(api):
    getattr(api, name)
print(len(dir(api)))
"""


def test_the_api_package_works_without_airflow() -> None:
    assert int(_python(WITHOUT_AIRFLOW)) > 10


@pytest.mark.parametrize("module", BATCH_CORE)
def test_a_module_of_the_batch_core_imports_neither_airflow_nor_http(module: str) -> None:
    loaded = {name.partition(".")[0] for name in json.loads(_python(IMPORTED, module))}
    assert loaded & set(AIRFLOW_AND_HTTP) == set()


BATCH = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # The value None makes an import of the module fail.
from tests.batch.unit.fakes import World, rows
print(World().run(rows("a", "b")).journal.decisions["ACCEPTED"])
"""


def test_a_batch_runs_without_airflow_and_http() -> None:
    assert _python(BATCH, *AIRFLOW_AND_HTTP) == "2"

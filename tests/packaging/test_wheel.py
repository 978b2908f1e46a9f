# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the wheel: build it, install it with its declared dependencies, and use it outside the source tree."""

from __future__ import annotations

import configparser
import email
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_faceki"
QUIETLY = ["-q", "--disable-pip-version-check", "--no-input"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    # The wheel is built from the sdist, as users of a package index can do. A file that is missing in the sdist would
    # be missing here.
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(out), "-t", "sdist"], cwd=ROOT)
    sdist = next(out.glob("*.tar.gz"))
    build = [sys.executable, "-m", "pip", "wheel", *QUIETLY, "--no-deps", "--no-build-isolation"]
    _run([*build, "-w", str(out), str(sdist)], cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that runs a command in a fresh environment with the wheel and its declared dependencies."""
    home = tmp_path_factory.mktemp("elsewhere")
    _run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], cwd=home)
    # uv resolves and installs the packages as pip does. With a warm cache it needs about 3 s of CPU time.
    into = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "-q",
        "--python",
        str(home / "venv" / "bin" / "python"),
    ]
    pins = ["-c", str(ROOT / "constraints" / "airflow-3.3.txt")]
    _run([*into, *pins, str(wheel)], cwd=home)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "True"}
    environment.pop("AIRFLOW__CORE__DAGS_FOLDER", None)

    def run(command: str, *arguments: str) -> str:
        return _run([str(home / "venv" / "bin" / command), *arguments], cwd=home, env=environment)

    return run


def _run(command: list[str], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _sources(directory: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / directory).rglob("*")
        if path.suffix in {".py", ".typed"}
    }


def _dist_info(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
        return archive.read(member).decode()


def test_wheel_holds_the_package_the_examples_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = _sources(PACKAGE) | {f"{PACKAGE}/{name}" for name in _sources("example_dags")}
    assert f"{PACKAGE}/py.typed" in wanted
    assert {name for name in members if name.endswith((".py", ".typed"))} == wanted
    # Data files of the package are allowed, but only inside the package folder.
    assert {name.partition("/")[0] for name in members} == {PACKAGE}


def test_metadata_says_what_it_needs(wheel: Path) -> None:
    metadata = email.message_from_string(_dist_info(wheel, "METADATA"))
    needed = {
        re.split(r"[<>=!~; ]", line)[0]
        for line in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    assert needed == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "certifi",
        "cryptography",
        "requests",
        "tenacity",
        "urllib3",
    }
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
    # The project has no public address yet, so the metadata names none.
    assert metadata.get_all("Project-URL", []) == ["FACEKI API, https://docs.faceki.com"]
    assert _dist_info(wheel, "licenses/LICENSE").lstrip().startswith("Apache License")


def test_entry_points(wheel: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(_dist_info(wheel, "entry_points.txt"))
    assert {section: dict(parser[section]) for section in parser.sections()} == {
        "airflow.plugins": {"faceki_webhook": f"{PACKAGE}.plugins.faceki:FacekiWebhookPlugin"},
        "apache_airflow_provider": {"provider_info": f"{PACKAGE}.get_provider_info:get_provider_info"},
        "console_scripts": {"faceki-sandbox": f"{PACKAGE}.sandbox.__main__:main"},
        "pytest11": {"faceki": f"{PACKAGE}.sandbox.pytest_plugin"},
    }


# One process prints all three lists, because importing Airflow takes longer than the rest.
LISTED = """
import json, sys
from airflow.__main__ import main
from airflow.dag_processing.bundles.manager import DagBundlesManager
for what in ("list", "hooks"):
    sys.argv = ["airflow", "providers", what, "-o", "json"]
    main()
print(json.dumps([bundle.name for bundle in DagBundlesManager().get_all_dag_bundles()]))
"""


def test_airflow_lists_the_provider_its_hook_and_its_examples(installed: Callable[..., str]) -> None:
    # Airflow writes log lines about the bundles to the standard output. So the list of the bundles is in the last line.
    providers, hooks, *_, bundles = installed("python", "-c", LISTED).splitlines()
    assert "airflow-provider-faceki" in {row["package_name"] for row in json.loads(providers)}
    (row,) = (row for row in json.loads(hooks) if row["connection_type"] == "faceki")
    assert row["class"] == f"{PACKAGE}.hooks.faceki.FacekiHook"
    assert row["hook_name"] == "FACEKI"
    assert "airflow-provider-faceki-example-dags" in json.loads(bundles)


EVERYTHING = """
import importlib, pkgutil, sys
import airflow_provider_faceki as package
assert sys.prefix in package.__file__, package.__file__
names = [each.name for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    # The plugin is for pytest, which this environment does not have; `__main__` runs when imported.
    if not name.endswith(("pytest_plugin", "__main__")):
        importlib.import_module(name)
print(len(names))
"""


def test_every_module_imports_with_the_declared_dependencies_only(installed: Callable[..., str]) -> None:
    assert int(installed("python", "-c", EVERYTHING).split()[-1]) > 20


def test_the_local_faceki_has_a_command(installed: Callable[..., str]) -> None:
    assert "faceki-sandbox" in installed("faceki-sandbox", "--help")

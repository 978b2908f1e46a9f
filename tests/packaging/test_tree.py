# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rules for every tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
LICENCE = "# Licensed under the Apache License, Version 2.0; see the file LICENSE."


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    # git also lists a file that is deleted but not committed yet. Such a file is skipped.
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


TRACKED = _tracked()
MODULES = [path for path in TRACKED if path.suffix == ".py"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_opens_with_licence_and_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(LICENCE + "\n")
    tree = ast.parse(text)
    first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert first_line or not tree.body, "the module does not say what it does"
    assert not first_line.endswith("?"), "a docstring says what the module does; it does not ask"


# The names are written in pieces. Otherwise this file would violate its own rule.
FOREIGN = {
    "a package registry": "|".join(
        re.escape(".".join(parts))
        for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian", "org"))
    ),
    "a directory of one machine": r"(?<![\w.$}-])/" + r"(?:work|root|home|Users)/" + r"|/tmp/" + r"envs",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_contains_a_foreign_name(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = [
        f"{_name(path)}: {match.group()}"
        for path in TRACKED
        if (match := pattern.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


#: FACEKI's fields are written in camel case. The fields of Airflow and of this provider are not.
READS_A_FIELD = re.compile(r"""(?:\.get\(|\[)["'][a-z]+[A-Z]\w*["']""")


def test_only_the_api_package_and_the_sandbox_read_fields_of_faceki() -> None:
    package = ROOT / "airflow_provider_faceki"
    above = [path for path in MODULES if path.is_relative_to(package)]
    above = [path for path in above if path.relative_to(package).parts[0] not in ("api", "sandbox")]
    assert [_name(path) for path in above if READS_A_FIELD.search(path.read_text(encoding="utf-8"))] == []
    readers = [path for path in MODULES if path.is_relative_to(package / "api")]
    assert any(READS_A_FIELD.search(path.read_text(encoding="utf-8")) for path in readers)


def test_the_version_exists_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project["dynamic"]
    source = (ROOT / "airflow_provider_faceki" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    assert version is not None
    # The changelog contains the history of versions. Every other file reads the version from the package.
    telling = {_name(path) for path in MODULES if f'"{version.group(1)}"' in path.read_text(encoding="utf-8")}
    assert telling == {"airflow_provider_faceki/__init__.py"}


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [re.fullmatch(r"\[[0-9.]+\] - [0-9]{4}-[0-9]{2}-[0-9]{2}", each) for each in headings[1:]]
    assert headings[0] == "[Unreleased]"
    assert None not in released


@pytest.mark.parametrize("airflow", ["3.3", "2.11"])
def test_pins_are_names_and_versions_only(airflow: str) -> None:
    lines = (ROOT / "constraints" / f"airflow-{airflow}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)] == []
    assert any(pin.startswith(f"apache-airflow=={airflow}.") for pin in pins)

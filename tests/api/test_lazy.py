# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does it cost to mention FACEKI, and are the names that may be mentioned those that exist?"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from airflow_provider_faceki import api

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))


def _promised() -> dict[str, str]:
    """Return what type checkers see: each name and its module."""
    (block,) = [
        node
        for node in SOURCE.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    found: dict[str, str] = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        assert statement.module is not None
        for alias in statement.names:
            assert alias.asname == alias.name, "only `import X as X` is an export"
            found[alias.name] = statement.module.removeprefix("airflow_provider_faceki.api.")
    return found


def test_type_checkers_and_python_see_the_same_names() -> None:
    assert _promised() == api._HOME
    assert sorted(api.__all__) == sorted(set(api.__all__))


@pytest.mark.parametrize("name", sorted(api.__all__))
def test_each_name_is_there_and_at_home(name: str) -> None:
    home = import_module(f"airflow_provider_faceki.api.{api._HOME[name]}")
    assert getattr(api, name) is getattr(home, name)
    assert getattr(api, name).__module__ == home.__name__
    assert name in dir(api)


def test_every_error_of_the_tree_is_a_name() -> None:
    errors = import_module("airflow_provider_faceki.api.errors")
    tree = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")
    }
    # A webhook comes from FACEKI and is answered, so its error is no FacekiError.
    assert tree | {"InvalidWebhookError"} == {name for name in api.__all__ if name.endswith("Error")}


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FetchNothing'"):
        api.FetchNothing  # noqa: B018 - the look-up is the test


BROUGHT = """
import json, sys
exec(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


def _brought_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", BROUGHT, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import airflow_provider_faceki.api", id="the package"),
        pytest.param("from airflow_provider_faceki import api; dir(api); api.__all__", id="looking around"),
        pytest.param("from airflow_provider_faceki.api import Service", id="one name"),
    ],
)
def test_mentioning_it_brings_nothing_heavy(code: str) -> None:
    brought = _brought_by(code)
    heavy = {"requests", "urllib3", "tenacity", "cryptography", "asyncio", "airflow", "ssl"}
    assert brought & heavy == set()
    assert {name for name in brought if name.startswith("airflow_provider_faceki.api.")} <= {
        "airflow_provider_faceki.api.service"
    }


def test_what_decides_needs_no_library_either() -> None:
    brought = _brought_by(
        "from airflow_provider_faceki.api import FetchRecords, FacekiError; FetchRecords(link='x')"
    )
    assert brought & {"requests", "urllib3", "tenacity", "cryptography", "airflow"} == set()
    assert "airflow_provider_faceki.api.endpoints.records" in brought


def test_asking_brings_neither_airflow_nor_without_need_cryptography() -> None:
    brought = _brought_by(
        "from airflow_provider_faceki.api import FacekiClient; FacekiClient('i', 's')._account"
    )
    assert "requests" in brought
    assert not {name for name in brought if name == "airflow" or name.startswith("airflow.")}
    assert "airflow_provider_faceki.api.tokens.file" not in brought

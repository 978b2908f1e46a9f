# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The public names of the api package, and the modules that an import of them loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from airflow_provider_faceki import api

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
STUB = ast.parse(Path(api.__file__).with_name("__init__.pyi").read_text(encoding="utf-8"))


def test_each_name_of_the_stub_is_one_export() -> None:
    exports = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in exports for alias in node.names]
    assert all(alias.asname == alias.name for node in exports for alias in node.names)
    assert names == api.__all__
    assert len(names) == len(set(names)) > 50


@pytest.mark.parametrize("name", sorted(api.__all__))
def test_each_public_name_is_importable_from_its_module(name: str) -> None:
    found = getattr(api, name)
    assert found is getattr(import_module(found.__module__), name)
    assert found.__module__.startswith("airflow_provider_faceki.api.")
    assert name in dir(api)


def test_every_error_of_the_tree_is_a_name() -> None:
    errors = import_module("airflow_provider_faceki.api.errors")
    tree = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")
    }
    # InvalidWebhookError is not a FacekiError and not in `errors`: it reports a received request, not a call of FACEKI.
    assert tree | {"InvalidWebhookError"} == {name for name in api.__all__ if name.endswith("Error")}


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'FetchNothing'"):
        getattr(api, "FetchNothing")  # noqa: B009 - the stub has no such name


BROUGHT = """
import json, sys
exec(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""


def _modules_loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", BROUGHT, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
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
def test_importing_the_api_package_loads_no_heavy_module(code: str) -> None:
    brought = _modules_loaded_by(code)
    heavy = {"requests", "urllib3", "tenacity", "cryptography", "asyncio", "airflow", "ssl"}
    assert brought & heavy == set()
    assert {name for name in brought if name.startswith("airflow_provider_faceki.api.")} <= {
        "airflow_provider_faceki.api.service"
    }


def test_importing_endpoints_and_errors_loads_no_library() -> None:
    brought = _modules_loaded_by(
        "from airflow_provider_faceki.api import FetchRecords, FacekiError; FetchRecords(link='x')"
    )
    assert brought & {"requests", "urllib3", "tenacity", "cryptography", "airflow"} == set()
    assert "airflow_provider_faceki.api.endpoints.records" in brought


def test_the_client_loads_neither_airflow_nor_the_file_token_store() -> None:
    brought = _modules_loaded_by(
        "from airflow_provider_faceki.api import FacekiClient; FacekiClient('i', 's')._session"
    )
    assert "requests" in brought
    assert not {name for name in brought if name == "airflow" or name.startswith("airflow.")}
    assert "airflow_provider_faceki.api.tokens.file" not in brought

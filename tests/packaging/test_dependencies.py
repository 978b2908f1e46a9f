# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every import of the provider is declared as a dependency, and every dependency has a reason."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Airflow, and packages that are always installed where the provider imports them. These are the packages of the API
# server, of the forms before 3.2, of masking on an event loop before 3.3, and of the OpenLineage provider.
_BY_AIRFLOW = {
    "airflow", "asgiref", "attrs", "fastapi", "flask_appbuilder", "flask_babel", "fsspec", "openlineage", "sqlalchemy",
    "wtforms",
}  # fmt: skip
# pytest itself loads the plugin of the local FACEKI.
_BY_PYTEST = {"pytest"}
_KNOWN = sys.stdlib_module_names | _BY_AIRFLOW | _BY_PYTEST | {"airflow_provider_faceki"}


def _declared() -> set[str]:
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    return {re.split(r"[<>=!~ \[]", each, maxsplit=1)[0].lower() for each in wanted}


def _imported() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (ROOT / "airflow_provider_faceki").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return found


def test_what_is_imported_is_declared() -> None:
    distributions = packages_distributions()
    undeclared = {
        module: path
        for module, path in _imported().items()
        if module not in _KNOWN and not {name.lower() for name in distributions.get(module, [])} & _declared()
    }
    assert not undeclared


def test_each_dependency_has_its_reason_and_the_bound_that_is_declared() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    reasons = {
        bound: row
        for row in table.splitlines()
        if row.startswith("| `")
        for bound in re.findall("`([^`]+)`", row)
    }
    for wanted in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert re.search("advisories|Advisories|none found", reasons[wanted]), wanted

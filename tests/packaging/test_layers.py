# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Does each module stand on a floor? One that the import rules do not name may import whatever it likes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import airflow_provider_faceki

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(airflow_provider_faceki.__file__).parent
#: The modules and packages directly below the package; the local FACEKI stands beside the house.
PARTS = {
    f"airflow_provider_faceki.{path.stem}"
    for path in PACKAGE.iterdir()
    if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
}
SANDBOX = "airflow_provider_faceki.sandbox"


def _contract(name: str) -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (found,) = [contract for contract in settings["contracts"] if contract["name"] == name]
    return dict(found)


def test_each_part_stands_on_one_floor() -> None:
    floors = [
        part
        for layer in _contract("Imports point down only")["layers"]
        for part in re.split(r"\s*[|:]\s*", layer)
    ]
    assert sorted(floors) == sorted(PARTS - {SANDBOX})


def test_nothing_but_the_tests_and_demonstrations_need_the_local_faceki() -> None:
    named = _contract("Nothing that ships to a worker needs the local FACEKI")["source_modules"]
    assert sorted(named) == sorted(PARTS - {SANDBOX})


def test_the_local_faceki_needs_no_part() -> None:
    named = _contract("The local FACEKI knows only the wire")["forbidden_modules"]
    assert sorted(named) == sorted({"airflow", *PARTS} - {SANDBOX})


#: Who sends, sleeps, keeps and measures time; docs/architecture.md names them.
PERFORMING = {
    "client",
    "connections",
    "pace",
    "performers",
    "retry",
    "token_file",
    "token_store",
    "transport",
}


def test_each_module_of_the_ground_decides_or_performs() -> None:
    deciding = _contract("What decides can neither do I/O, nor sleep, nor log")["source_modules"]
    ground = {path.stem for path in (PACKAGE / "api").glob("*.py")} - {"__init__"}
    assert sorted(name.rpartition(".")[2] for name in deciding) == sorted(ground - PERFORMING)

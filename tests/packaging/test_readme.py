# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The README is short, and its DAG, its Connection and its make targets work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.running import bundles, run

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox import FacekiSandbox

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_dag_runs(
    faceki_sandbox: FacekiSandbox, airflow_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme_dag.py").write_text(code, encoding="utf-8")
    for name, value in bundles(tmp_path).items():
        monkeypatch.setenv(name, value)
    faceki_sandbox.settings.auto_answer = 0.0
    done = run(airflow_db, tmp_path, "kyc", customer="declined-7")
    assert done.state == "success"
    assert done.xcom("decision")["decision"] == "DECLINED"


def test_its_connection_is_valid() -> None:
    (found,) = re.findall(r"AIRFLOW_CONN_FACEKI_DEFAULT='(.*?)'", README)
    connection = json.loads(found)
    assert connection["conn_type"] == "faceki"
    assert set(connection) == {"conn_type", "login", "password", "extra"}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^make (\w+)", README, re.MULTILINE))))
def test_its_commands_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command}:", makefile, re.MULTILINE)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The DAG and the commands of the README work, in the printed order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.running import AIRFLOW_3, bundles, run

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox import FacekiSandbox

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_fits_a_screen() -> None:
    assert len(README.splitlines()) <= 65


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


# `make` has separate stages and environments for these commands.
MADE = [line for line in README.splitlines() if line.startswith("make ")]


def _script(folder: Path) -> str:
    """Return all shell commands in the order of the page. Write the DAG that the page describes to the folder."""
    (dag,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (saved_as,) = re.findall(r"Saved as `(\S+\.py)`", README)
    (folder / "kyc.py").write_text(dag, encoding="utf-8")
    # If a command fails, the sandbox must be stopped too.
    lines = ["set -eux", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL):
        if kind == "python":
            lines.append(f'mkdir -p "$(dirname {saved_as})"; cp {folder}/kyc.py {saved_as}')
        else:
            lines += [line for line in block.splitlines() if line not in MADE]
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(not AIRFLOW_3, reason="the README is for Airflow 3; it takes an environment of its own")
def test_its_commands_run_in_an_empty_folder(tmp_path: Path) -> None:
    """Run the commands in a home directory without Airflow, as on a fresh machine. pip needs minutes for this."""
    script, empty = tmp_path / "script.sh", tmp_path / "empty"
    script.write_text(_script(tmp_path), encoding="utf-8")
    empty.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))
    }
    interpreter = Path(sys.executable).resolve().parent
    environment = kept | {
        "HOME": str(empty),
        "PATH": f"{interpreter}{os.pathsep}{os.defpath}{os.pathsep}/usr/local/bin",
        "REPOSITORY": str(ROOT),
    }
    done = subprocess.run(
        ["sh", str(script)],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "state=success" in done.stdout + done.stderr


def test_its_connection_is_valid() -> None:
    (found,) = re.findall(r"AIRFLOW_CONN_FACEKI_DEFAULT='(.*?)'", README)
    connection = json.loads(found)
    assert connection["conn_type"] == "faceki"
    assert set(connection) == {"conn_type", "login", "password", "extra"}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^make (\w+)", README, re.MULTILINE))))
def test_its_commands_exist(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{command}:", makefile, re.MULTILINE)

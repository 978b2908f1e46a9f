# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The commands of the README, the quickstart and the tutorials run as they are printed, in the printed order.

The README's commands make an environment in an empty folder. The other pages start in this folder, as their readers do.
`make test-thorough` runs the tutorials too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from demo.processes import free_port
from tests.airflow.running import AIRFLOW_3
from tests.processes import running_with
from tests.thorough import THOROUGH

pytestmark = [
    pytest.mark.long,
    pytest.mark.process,
    pytest.mark.skipif(not AIRFLOW_3, reason="the pages install Airflow 3 into an environment of their own"),
]

ROOT = Path(__file__).resolve().parents[2]
#: An environment is installed or a whole Airflow is started, which takes minutes on a busy machine.
MAX_SECONDS = 900


TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def commands(page: str) -> list[str]:
    """Return the lines of a shell script with all commands of a page. Code that readers must save becomes a file.

    Calls of `make` are left out, because other stages of the CI run these targets.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = r"(?:Save this as `(\S+)`[^`]*)?```(sh|python)\n(.*?)```"
    lines = []
    for saved_as, kind, block in re.findall(blocks, text, re.DOTALL):
        if kind == "sh":
            lines += [line for line in block.splitlines() if not line.startswith("make ")]
        elif saved_as:
            lines += [
                f"mkdir -p $(dirname {saved_as}); cat >{saved_as} <<'END_OF_FILE'",
                block,
                "END_OF_FILE",
            ]
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def run_in(folder: Path, lines: list[str]) -> str:
    """Run a shell script as on a fresh machine, and return its output. Stop everything that it has started."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))
    }
    interpreter = Path(sys.executable).resolve().parent
    environment = kept | {
        "HOME": str(folder),
        "PATH": f"{interpreter}{os.pathsep}{os.defpath}{os.pathsep}/usr/local/bin",
        "REPOSITORY": str(ROOT),
        "PORT": str(free_port()),
        # On a busy machine a task that starts cannot reach the API server within Airflow's five seconds.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        # pip compiles no modules, because the commands import only a part of what pip installs.
        "PIP_NO_COMPILE": "1",
    }
    script = subprocess.Popen(
        # In a terminal, SIGINT ends processes in the background. For the same behaviour, the shell needs job control
        # (set -m), and must not inherit that SIGINT is ignored. The processes of a CI system often ignore SIGINT.
        [sys.executable, "-c", TERMINAL, "bash", "-eux", "-c", "\n".join(["set -m", *lines])],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = script.communicate(timeout=MAX_SECONDS)
        _, left = psutil.wait_procs(running_with("HOME", str(folder)), timeout=300)
    finally:
        for process in running_with("HOME", str(folder)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert (script.returncode, left) == (0, []), output[-8000:]
    return output


@pytest.fixture(scope="module")
def of_the_readme(folder: Path) -> str:
    """Run the README's commands, and return their output."""
    return run_in(folder, commands("README.md"))


def test_readme(of_the_readme: str) -> None:
    assert "state=success" in of_the_readme


def test_quickstart(folder: Path, of_the_readme: str) -> None:
    lines = commands("docs/quickstart.md")
    installing = [line for line in lines if line.startswith(("git clone", "python3 -m venv", "pip install"))]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(installing) == 3
    assert all(line in readme for line in installing)
    output = run_in(folder, [line for line in lines if line not in installing])
    assert re.search(r"FACEKI decided verification \S+: ACCEPTED", output)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        pytest.param("link-to-webhook", ["| success |"], id="link to webhook"),
        pytest.param(
            "images",
            ["Welcome", "Declined: ", "{'case-1': 1, 'declined-2': 1, 'code-8006-3': 1}"],
            id="images",
        ),
        pytest.param(
            "nightly-batch",
            ["person-1 ACCEPTED", "declined-3 DECLINED", "'person-7': 1"],
            id="nightly batch",
        ),
    ],
)
@pytest.mark.skipif(not THOROUGH, reason="only in make test-thorough: the tutorials take minutes")
@pytest.mark.usefixtures("of_the_readme")
def test_tutorials(folder: Path, page: str, told: list[str]) -> None:
    output = run_in(folder, commands(f"docs/tutorials/{page}.md"))
    assert [text for text in told if text not in output] == []

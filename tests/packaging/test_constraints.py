# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The pins can be resolved together with other providers that users probably install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.thorough import THOROUGH

ROOT = Path(__file__).resolve().parents[2]
PINS = sorted((ROOT / "constraints").glob("airflow-*.txt"))
#: The pins that `make test` installs itself.
INSTALLED = {"airflow-2.11", "airflow-3.3"}
#: The oldest release of each provider that is recent enough. On 2026-11-29, the pins of Airflow 3.0 led to these
#: releases, and the pins of the other versions to these or later ones. Without this limit, the resolver would choose a
#: release that is years old, because it has fewer requirements.
PROVIDERS = {
    "amazon": "9.12",
    "google": "19.5",
    "microsoft-azure": "13.5",
    "celery": "3.26",
    "cncf-kubernetes": "10.24",
    "postgres": "6.5",
    "openlineage": "2.6",
}

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.mark.parametrize(
    "pins",
    [
        pytest.param(
            pins,
            id=pins.stem,
            marks=pytest.mark.skipif(
                pins.stem not in INSTALLED and not THOROUGH,
                reason="only in make test-thorough: pins of other versions of Airflow",
            ),
        )
        for pins in PINS
    ],
)
def test_the_pins_combine_with_other_providers(pins: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.in"
    lines = [f"apache-airflow-providers-{name}>={version}" for name, version in PROVIDERS.items()]
    wanted.write_text("\n".join(["apache-airflow", *lines]), encoding="utf-8")
    # The command installs nothing and downloads only metadata. The Python version is 3.11.9, because some packages do
    # not support the first patch releases of 3.11.
    command = [
        sys.executable,
        "-m",
        "uv",
        "--no-config",
        "pip",
        "compile",
        "--quiet",
        "--python-version",
        "3.11.9",
    ]
    done = subprocess.run(
        [*command, "--constraint", str(pins), str(wanted)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"apache-airflow=={pins.stem.removeprefix('airflow-')}." in done.stdout

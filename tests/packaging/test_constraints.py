# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The pins can be resolved together with other providers that users probably install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVIDERS = ("amazon", "google", "microsoft-azure", "celery", "cncf-kubernetes", "postgres", "openlineage")

pytestmark = pytest.mark.process


@pytest.mark.parametrize("airflow", ["3.3", "2.11"])
def test_the_pins_combine_with_other_providers(airflow: str, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.in"
    lines = ["apache-airflow", *(f"apache-airflow-providers-{provider}" for provider in PROVIDERS)]
    wanted.write_text("\n".join(lines), encoding="utf-8")
    pins = ROOT / "constraints" / f"airflow-{airflow}.txt"
    # This resolves and downloads only metadata. It uses 3.11.9, because some packages do not support the first patch
    # releases of 3.11.
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
    assert f"apache-airflow=={airflow}." in done.stdout

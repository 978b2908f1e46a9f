# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Install the peers, which are the packages that the provider is compared with, into a separate directory.

The directory is not part of the environment. Only the benchmarks search it for packages.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).with_name("peers.txt")
_INSTALL_SECONDS = 300


def install(work: Path) -> Path | None:
    """Return the directory with the peers, which are the packages that the provider is compared with.

    If the directory does not exist yet, install the peers into it.

    :param work: Parent directory, which also contains pip's log.
    :returns: The directory, or ``None`` if pip fails.
    """
    mark = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    place = work / f"peers-{sys.version_info.major}.{sys.version_info.minor}-{mark}"
    if place.is_dir():
        return place
    draft = place.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    # The file ``peers.txt`` lists the peers and those of their dependencies that Airflow does not install. With
    # --no-deps, pip installs nothing else, for example no second copy of Airflow.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ]
    log = work / "peers.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [*pip, "--target", str(draft), "-r", str(PINS)],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    if done.returncode:
        print(f"The peers could not be installed; what pip says: {log}", file=sys.stderr)
        return None
    draft.rename(place)
    return place


def available() -> bool:
    """Return whether this process can import the peers, which are the packages that the provider is compared with."""
    # Only the dbt package is searched for. The other peers are dependencies of the test packages, so this process can
    # possibly import them although ``install`` has failed.
    return importlib.util.find_spec("airflow.providers.dbt") is not None

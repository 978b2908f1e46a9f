# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Install the peers, which are the packages that the provider is compared with, into a separate directory.

Only the benchmarks search this directory for packages. In the normal environment, Airflow would load the peers as its
providers, and the measurements of our provider would include this work.
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
    # The file ``peers.txt`` lists the peers and all their dependencies except Airflow. With --no-deps, pip does not
    # install a second copy of Airflow.
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
    return importlib.util.find_spec("airflow.providers.http") is not None

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Memory and CPU time for sending seven images of 5 MB over TLS.

Our client is compared with other clients, and with a program that only copies the files to a socket. The CPU time is
measured in this process, in rounds. In each round, every client is measured once. The memory is the peak growth in a
fresh process (``benchmarks/uploading.py``). Each client is measured in three processes, and the median of the three
results is used.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks import clients
from benchmarks.frame import Row, Target, counted, measure_rounds
from benchmarks.loopback import Loopback, loopback
from benchmarks.uploading import BASELINE, IMAGES, OURS, candidates

LARGE, SMALL = 5_000_000, 1_000
ROUNDS = 15
PROCESSES = 3


def measure(directory: Path) -> list[Row]:
    """Measure CPU and memory of the uploads, and return the rows of the result table."""
    large, small = _images(directory / "large", LARGE), _images(directory / "small", SMALL)
    with loopback(directory) as server:
        clients.connect(server, tls=True)
        return _cpu(server, large) + _memory(server, small, large)


def _cpu(server: Loopback, large: Path) -> list[Row]:
    made = {name: make() for name, make in candidates(server.tls, server.certificate).items()}
    uploads = {name: partial(upload, large) for name, upload in made.items()}
    took = measure_rounds(uploads, rounds=ROUNDS, calls=1, clock=time.process_time)
    target = Target("ratio", "≤", 2.0)
    return [
        took.row("upload of 7 x 5 MB, TLS, CPU", OURS, name, target=target if name == BASELINE else None)
        for name in uploads
        if name != OURS
    ]


def _memory(server: Loopback, small: Path, large: Path) -> list[Row]:
    grown = {
        name: statistics.median(_growth(server, name, small, large) for _ in range(PROCESSES))
        for name in candidates(server.tls, server.certificate)
    }
    target = Target("ours", "≤", 1.0)
    return [
        counted(
            "upload of 7 x 5 MB, TLS, memory",
            name,
            grown[name],
            grown[OURS],
            "MiB",
            target if name == BASELINE else None,
        )
        for name in grown
        if name != OURS
    ]


def _growth(server: Loopback, name: str, small: Path, large: Path) -> float:
    arguments = (name, server.tls, str(server.certificate), str(small), str(large))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uploading", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def _images(folder: Path, size: int) -> Path:
    """Write seven files with the signature of a JPEG file and random content. Return the folder."""
    folder.mkdir()
    for name in IMAGES:
        (folder / f"{name}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(size - 4))
    return folder

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A private PostgreSQL server on loopback that starts and ends with the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.processes import free_port


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL: on Debian root installs it with `make services`")
    pytest.importorskip("psycopg2", reason="no driver for PostgreSQL")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the SQLAlchemy URL of an empty database. Commits are flushed to disk, which is the default."""
    binaries, port = _binaries(), free_port()
    # Only the owner can enter pytest's own folder. The server runs as another user, so it needs another folder.
    data = Path(tempfile.mkdtemp(prefix="faceki-postgres-"))
    printed = data.with_suffix(".log")
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(data, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    init = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "airflow", "-A", "trust"]
    subprocess.run(init, check=True, capture_output=True, cwd="/")
    options = [
        "-D",
        str(data),
        "-k",
        str(data),
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
        "-c",
        "max_connections=200",
    ]
    with printed.open("wb") as log:
        server = subprocess.Popen(
            [*as_user, str(binaries / "postgres"), *options], cwd="/", stdout=log, stderr=log
        )
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            assert server.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(120)
        shutil.rmtree(data, ignore_errors=True)
        printed.unlink()

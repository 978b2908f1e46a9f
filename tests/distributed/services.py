# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A private Redis server on loopback that starts and ends with the test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demo.processes import free_port
from tests.processes import listens
from tests.waiting import wait_until


@contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of an empty Redis server."""
    command = shutil.which("redis-server")
    if command is None:
        pytest.skip("no Redis: on Debian root installs it with `make services`")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="faceki-redis-") as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen([command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: listens(port))
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(120)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Find the processes and the servers that a test has started."""

from __future__ import annotations

import socket
from contextlib import closing

import psutil


def running_with(name: str, value: str) -> list[psutil.Process]:
    """Return the running processes whose environment variable ``name`` has this value."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def listens(port: int) -> bool:
    """Return whether a server accepts connections on this port of the loopback address."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

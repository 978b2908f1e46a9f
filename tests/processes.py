# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Find the processes that a test has started."""

from __future__ import annotations

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

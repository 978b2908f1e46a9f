# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Child processes without ``exec``: start one with a function, and wait for its exit code."""

from __future__ import annotations

import os
import posix
import signal
import time
import traceback
from collections.abc import Callable

#: A busy machine possibly needs many seconds. A child that hangs needs forever.
MAX_SECONDS = 120.0


def fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a child process and return the process id. If ``work`` returns true, the exit code is 0."""
    child = os.fork()
    if child:
        return child
    code = 2
    try:
        code = 0 if work() else 1
    except Exception:  # noqa: BLE001 - the exit code reports each exception to the parent
        traceback.print_exc()
    finally:
        # Coverage replaces ``os._exit``. Its function waits for a lock that a thread of the parent possibly held.
        posix._exit(code)


def exit_code(child: int) -> int | None:
    """Return the exit code of a child. If the child does not end in time, kill it and return ``None``."""
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

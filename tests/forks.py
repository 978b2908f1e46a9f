# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Child processes without ``exec``: start one with a function, and wait for its exit code."""

from __future__ import annotations

import faulthandler
import os
import posix
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

#: Time limit for a child process. On a busy machine a child possibly needs many seconds, but only a child that hangs
#: exceeds this limit.
MAX_SECONDS = 120.0


def fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a child process and return the process id. If ``work`` returns true, the exit code is 0."""
    faulthandler.register(signal.SIGUSR1, file=2)
    # Turn off coverage in the child. Otherwise the child waits forever if another thread of the parent held coverage's
    # lock at the fork. Coverage must already be off at the call of ``os.fork``, because this call runs the at-fork
    # functions of the package in the child.
    tracer = sys.gettrace()
    sys.settrace(None)
    child = os.fork()
    if child:
        sys.settrace(tracer)
        return child
    threading.settrace(None)  # for the threads that the child starts
    code = 2
    try:
        code = 0 if work() else 1
    except Exception:  # noqa: BLE001 - the exit code reports each exception to the parent
        traceback.print_exc()
    finally:
        # This is the original function. Coverage replaces ``os._exit`` by a function that waits for a similar lock.
        posix._exit(code)


def exit_code(child: int) -> int | None:
    """Return the exit code of a child. If the child does not end in time, kill it and return ``None``.

    Before the child is killed, it writes its stack to standard error, which shows where it hangs.
    """
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGUSR1)
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

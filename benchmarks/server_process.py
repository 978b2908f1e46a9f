# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run a server of the benchmarks in a separate process, so that its CPU time and memory are not measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: The time limit for the end of a server after its standard input is closed.
_END_SECONDS = 30.0


@contextmanager
def server_process(module: str, *arguments: str, log_requests: bool = True) -> Iterator[str]:
    """Start the server ``python -m benchmarks.<module>``, yield the line that it prints when it is ready, and end it.

    The server ends when its standard input is closed. Therefore it also ends if the calling process is killed.

    :param module: Name of the module in this package.
    :param arguments: Command-line arguments of the module.
    :param log_requests: Whether the server's standard error is shown. Some servers write an access log to it.
    """
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if log_requests else subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline()
        finally:
            server.stdin.close()
            try:
                server.wait(_END_SECONDS)
            finally:
                server.kill()

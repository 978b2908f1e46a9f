# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Start processes so that none of them, nor any of their children, is left behind.

Airflow puts each task into a process group of its own, so ending a group does not reach them all, and a child
whose parent dies is handed to init, where it is not found. This process therefore asks the kernel to hand it
such orphans (it becomes a "subreaper"), and ends whatever still descends from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

# Airflow's own components take a few seconds to close the database and to stop their tasks.
GRACE_SECONDS = 15.0
KILL_SECONDS = 5.0


class Interrupted(BaseException):
    """A signal asked this process to end. Not an Exception: nothing on the way out may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class ProcessFailed(RuntimeError):
    """A process ended, or did not come up, although it was needed."""


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """The processes of one run. As a context manager it ends them all on the way out, whatever the way."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(self, *reason: object) -> None:
        with _ignored_signals():
            _end_descendants()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Path:
        """Start a command in a session of its own; what it prints goes to the log file that is returned."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            # Its own session: Ctrl-C reaches this process alone, which then ends the others in order.
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        return log

    def check(self) -> None:
        """Raise ProcessFailed if one of them has ended."""
        for name, process in self._started.items():
            if (code := process.poll()) is not None:
                raise ProcessFailed(f"{name} ended with status {code}; its log: {self.logs / name}.log")


def _end_descendants() -> None:
    """End all that this process started, directly or not: polite first, then not.

    Children of what has ended are this process's own children by then, so the second look finds them too.
    `airflow standalone` is not trusted to end its components: on SIGTERM it leaves them running.
    """
    for send, limit in ((psutil.Process.terminate, GRACE_SECONDS), (psutil.Process.kill, KILL_SECONDS)):
        left = psutil.Process().children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        psutil.wait_procs(left, timeout=limit)


@contextlib.contextmanager
def _ignored_signals() -> Iterator[None]:
    """A second Ctrl-C must not stop the tidying half way."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP leave the block by one road: Interrupted."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def own_environment() -> dict[str, str]:
    """This process's environment, without another Airflow's settings, loopback spared from proxies."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))
    }
    bin_directory = str(Path(sys.executable).parent)
    # `airflow standalone` starts its components as `airflow`, found by PATH.
    kept["PATH"] = f"{bin_directory}{os.pathsep}{kept.get('PATH', os.defpath)}"
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1,localhost"
    return kept

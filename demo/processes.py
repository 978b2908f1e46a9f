# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Start processes and end them reliably, together with all their descendants.

A signal to one process group is not sufficient, because Airflow puts each task into its own process group. If a parent
process ends, the kernel normally makes init the new parent of its children. Then this module could not find them.

On Linux, the module therefore makes the current process a "subreaper". Then the current process becomes the new parent
of these children. At the end of the `with` block of `Processes`, the module ends the descendants of the current
process. The children that the process already had before the block, and their descendants, are not ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

PR_SET_CHILD_SUBREAPER = 36  # The value is defined in linux/prctl.h.

# Time in seconds between SIGTERM and SIGKILL. Airflow's components need a few seconds to close the database and to stop
# their tasks.
GRACE_SECONDS = 15.0
KILL_SECONDS = 5.0
#: The maximal number of error lines from each log in a message. The message is shown if a condition, for example that
#: Airflow has started, does not become true in time.
MAX_ERROR_LINES = 10
_ERROR = re.compile(r"\b(?:error|critical|Traceback|exited|\w+Error)\b", re.IGNORECASE)


class Interrupted(BaseException):
    """Exception: a signal requested the end of this process.

    The class is derived from BaseException, so that no `except Exception` suppresses it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class ProcessFailed(RuntimeError):
    """Error: a required process has ended too early."""


def free_port() -> int:
    """Return a TCP port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """The processes of one run. At the end of the `with` block, all processes are ended, even after an exception.

    Children that this process already had before the block, and their descendants, are not ended.

    :param logs: the directory for the log files.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._others: list[psutil.Process] = []

    def __enter__(self) -> Processes:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._others = psutil.Process().children()
        return self

    def __exit__(self, *reason: object) -> None:
        with _ignored_signals():
            _end_descendants(self._others)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Path:
        """Start a command in its own session, and return the path of the log file with its output."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            # In its own session, the command does not receive the SIGINT of Ctrl-C. Only the current process receives
            # this signal, and then ends all commands.
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
        """Check that all processes are running.

        :raises ProcessFailed: if a process has ended.
        """
        for name, process in self._started.items():
            if (code := process.poll()) is not None:
                raise ProcessFailed(f"{name} ended with status {code}; its log: {self.logs / name}.log")

    def last_errors(self) -> str:
        """Return the last `MAX_ERROR_LINES` error lines of each log, as one text.

        Each line of the text is one error line, after the name of its process. If no log contains an error line, the
        text is empty.
        """
        found = []
        for name in self._started:
            lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
            errors = [line for line in lines if _ERROR.search(line)]
            found += [f"\n{name}: {line.strip()[:300]}" for line in errors[-MAX_ERROR_LINES:]]
        return "".join(found)


def _end_descendants(others: Sequence[psutil.Process]) -> None:
    """End the descendants of this process, except `others` and their descendants.

    In the first step, these descendants get SIGTERM. In the second step, after at most `GRACE_SECONDS`, the descendants
    that still run get SIGKILL. If a descendant ends in the first step, its children become children of this process, so
    the second step finds them.

    Each component of Airflow gets its own signal, because `airflow standalone` does not end its components on SIGTERM.
    """
    for send, limit in ((psutil.Process.terminate, GRACE_SECONDS), (psutil.Process.kill, KILL_SECONDS)):
        kept = {process for each in others for process in family(each)}
        left = [process for process in psutil.Process().children(recursive=True) if process not in kept]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        psutil.wait_procs(left, timeout=limit)


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all its descendants. If the process has ended, return an empty list."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def _ignored_signals() -> Iterator[None]:
    """Ignore signals, so that a second Ctrl-C does not interrupt the cleanup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the `with` block on SIGINT, SIGTERM and SIGHUP."""

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
    """Return a copy of this process's environment variables, without the settings of Airflow.

    `PATH` also contains the directory of this Python. `NO_PROXY` is set, so that requests to this machine use no proxy.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))
    }
    bin_directory = str(Path(sys.executable).parent)
    # `airflow standalone` starts its components with the command `airflow`, which it searches in PATH.
    kept["PATH"] = f"{bin_directory}{os.pathsep}{kept.get('PATH', os.defpath)}"
    kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1,localhost"
    return kept

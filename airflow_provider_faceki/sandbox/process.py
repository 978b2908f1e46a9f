# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""`SandboxProcess`: a sandbox in a separate process, for tests that fork or kill their own process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_provider_faceki.sandbox.backend.clock import real_monotonic
from airflow_provider_faceki.sandbox.control import ControlClient
from airflow_provider_faceki.sandbox.server import connection
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET

START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0


class SandboxProcess:
    """A context manager that runs a sandbox in a separate process.

    The sandbox process ends at the end of the `with` block. It also ends when the current process ends, even if the
    current process is killed.

    :param arguments: command-line options of `faceki-sandbox`.
    :param client_id: the client id that the sandbox accepts.
    :param client_secret: the client secret that the sandbox accepts.
    :param tls: the paths of a certificate and its private key. If None, the sandbox speaks plain HTTP.
    """

    def __init__(
        self,
        *arguments: str,
        client_id: str = DEFAULT_CLIENT_ID,
        client_secret: str = DEFAULT_CLIENT_SECRET,
        tls: tuple[str | PathLike[str], str | PathLike[str]] | None = None,
    ) -> None:
        self.url = ""
        self.client_id = client_id
        self.client_secret = client_secret
        self._tls = None if tls is None else (fspath(tls[0]), fspath(tls[1]))
        self._arguments = [*arguments, "--client-id", client_id, "--client-secret", client_secret]
        if self._tls:
            self._arguments += ["--tls-cert", self._tls[0], "--tls-key", self._tls[1]]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        if self._process is not None:
            raise RuntimeError("this sandbox is already running")
        with tempfile.TemporaryDirectory(prefix="faceki-sandbox-") as folder:
            ready = Path(folder, "url")
            command = [sys.executable, "-m", "airflow_provider_faceki.sandbox", *self._arguments]
            command += ["--port-file", str(ready), "--exit-with-parent", str(os.getpid()), "--quiet"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
            deadline = real_monotonic() + START_TIMEOUT_SECONDS
            while not ready.exists():
                if self._process.poll() is not None or real_monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("faceki-sandbox did not start; its own message is above")
                time.sleep(0.01)
            self.url = ready.read_text().strip()
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def control(self) -> ControlClient:
        """A client of the control API of this sandbox."""
        return ControlClient(self.url, self._tls[0] if self._tls else None)

    def connection(self, **extra: object) -> dict[str, object]:
        """Return an Airflow Connection to this sandbox, as a JSON object.

        :param extra: members to add to the Connection's extra or to replace in it.
        """
        return connection(self.url, self.client_id, self.client_secret, self._tls, extra)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The command `faceki-sandbox`, which runs a sandbox until SIGTERM or SIGINT.

With the option `--exit-with-parent`, the command also ends when its parent process ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import secrets
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_faceki.sandbox.backend.clock import real_monotonic
from airflow_provider_faceki.sandbox.dialects import DOCUMENTED
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Settings

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.server import FacekiSandbox

PARENT_CHECK_SECONDS = 0.5
MAX_LOG_LINES = 1000
STDERR = 2
FLUSH_TIMEOUT_SECONDS = 1.0
#: The path of the provider's webhook receiver for the Connection `faceki_default`.
WEBHOOK_PATH = "/faceki/webhook/faceki_default"
REQUIRED_PACKAGES = ("starlette", "uvicorn", "python_multipart")


def missing_packages() -> str:
    """Return an error message with the names of the required packages that are not installed.

    If all required packages are installed, return an empty text.
    """
    missing = [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"the sandbox needs {', '.join(missing)}: install the extra 'sandbox'"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line options."""
    made = argparse.ArgumentParser(
        prog="faceki-sandbox",
        description=(
            "A local server that simulates FACEKI. Its persons, credentials and decisions are invented."
        ),
    )
    made.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1); an address that is not loopback needs --expose",
    )
    made.add_argument(
        "--port", type=_port, default=0, help="port to listen on; 0, the default, selects a free port"
    )
    made.add_argument(
        "--expose",
        action="store_true",
        help="allow a --host that other machines can reach; needs --allow-remote-access too",
    )
    made.add_argument(
        "--allow-remote-access",
        action="store_true",
        help="confirm that everyone who can connect to the sandbox can control it",
    )
    made.add_argument("--client-id", default=DEFAULT_CLIENT_ID)
    made.add_argument("--client-secret", default=DEFAULT_CLIENT_SECRET)
    made.add_argument("--token-lifetime", type=float, default=3600, metavar="SECONDS")
    made.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before every answer")
    made.add_argument(
        "--auto-answer", type=float, metavar="SECONDS", help="decide each link automatically after this time"
    )
    made.add_argument(
        "--dialect",
        default=DOCUMENTED,
        metavar="NAME[,NAME]",
        help="differences from FACEKI's documentation; docs/sandbox.md lists them",
    )
    webhooks = made.add_mutually_exclusive_group()
    webhooks.add_argument("--webhook-url", metavar="URL", help="URL that webhooks are sent to")
    webhooks.add_argument(
        "--airflow-url",
        metavar="URL",
        help="send webhooks to this Airflow; the printed Connection contains the token for them",
    )
    made.add_argument("--tls-cert", metavar="FILE")
    made.add_argument("--tls-key", metavar="FILE")
    made.add_argument(
        "--port-file",
        type=Path,
        metavar="FILE",
        help="file to which the URL is written when the server is ready",
    )
    made.add_argument(
        "--exit-with-parent",
        nargs="?",
        type=int,
        const=os.getppid(),
        metavar="PID",
        help="end when the parent process, which started this one, ends; PID is its id",
    )
    made.add_argument("--quiet", action="store_true", help="print nothing, log no requests")
    return made


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed is a whole number from 0 to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    :raises SystemExit: if an option is invalid, a package is missing, or the sandbox cannot start. The exit code is 2.
    """
    command = parser()
    chosen = command.parse_args(arguments)
    if problem := missing_packages():
        command.exit(2, f"faceki-sandbox: {problem}\n")
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        command.error("--tls-cert and --tls-key must be given together")
    ended = threading.Event()
    # The signal handlers are installed before the server starts, so that a signal during the start is handled too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.set())
    try:
        log = None if chosen.quiet else LineLog(STDERR)
        sandbox = _sandbox(chosen, log).start()
    except (ValueError, OSError) as wrong:
        command.exit(2, f"faceki-sandbox: {wrong}\n")
    try:
        _announce(sandbox, chosen)
    except OSError as wrong:  # The file of `--port-file` or the standard output cannot be written.
        sandbox.stop()
        command.exit(2, f"faceki-sandbox: {wrong}\n")
    try:
        while not ended.wait(PARENT_CHECK_SECONDS):
            if chosen.exit_with_parent not in (None, os.getppid()):
                break
    finally:
        sandbox.stop()
        if log is not None:
            log.flush()
        if chosen.port_file is not None:
            with suppress(OSError):
                chosen.port_file.unlink()
    return 0


def _sandbox(chosen: argparse.Namespace, log: LineLog | None) -> FacekiSandbox:
    from airflow_provider_faceki.sandbox.control import is_loopback
    from airflow_provider_faceki.sandbox.server import FacekiSandbox, no_log

    if not is_loopback(chosen.host) and not (chosen.expose and chosen.allow_remote_access):
        raise ValueError(
            f"--host: found {chosen.host!r}, allowed is a loopback address; another address needs both "
            "--expose and --allow-remote-access, because everyone who can connect to the sandbox can "
            "control it"
        )
    if chosen.airflow_url is not None:
        chosen.webhook_token = secrets.token_urlsafe(32)
        chosen.webhook_url = f"{chosen.airflow_url.rstrip('/')}{WEBHOOK_PATH}/{chosen.webhook_token}"
    settings = Settings(
        client_id=chosen.client_id,
        client_secret=chosen.client_secret,
        token_lifetime=chosen.token_lifetime,
        latency=chosen.latency,
        auto_answer=chosen.auto_answer,
        dialect=chosen.dialect,
        webhook_url=chosen.webhook_url,
    )
    return FacekiSandbox(
        settings=settings,
        host=chosen.host,
        port=chosen.port,
        tls=(chosen.tls_cert, chosen.tls_key) if chosen.tls_cert else None,
        expose=chosen.expose and chosen.allow_remote_access,
        log=log or no_log,
    )


def _announce(sandbox: FacekiSandbox, chosen: argparse.Namespace) -> None:
    if chosen.port_file is not None:
        _write_whole(chosen.port_file, sandbox.url + "\n")
    if chosen.quiet:
        return
    extra = {} if chosen.airflow_url is None else {"webhook_token": chosen.webhook_token}
    connection = shlex.quote(json.dumps(sandbox.connection(**extra)))
    print(
        f"FACEKI sandbox (a stand-in, not FACEKI) on {sandbox.url}, hosted page {sandbox.url}/kycverify/<link>"
    )
    print(f"export AIRFLOW_CONN_FACEKI_DEFAULT={connection}", flush=True)


def _write_whole(target: Path, text: str) -> None:
    """Write a text to a file atomically, so that no other process reads an incomplete file."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
        os.replace(name, target)
    except BaseException:
        # After an exception, including Ctrl-C, the temporary file is useless. Therefore it is removed.
        with suppress(OSError):
            os.unlink(name)
        raise


class LineLog:
    """A log that writes its lines to a file descriptor in a separate thread.

    If the descriptor is a pipe that no process reads, a write can block. The write blocks only the separate thread, and
    the server continues. If `MAX_LOG_LINES` lines wait for the thread, further lines are dropped.

    :param descriptor: the file descriptor, for example 2 for stderr.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(MAX_LOG_LINES)
        threading.Thread(target=self._write_all, name="faceki-sandbox-log", daemon=True).start()

    def __call__(self, line: str) -> None:
        with suppress(queue.Full):
            self._lines.put_nowait(line)

    def flush(self) -> None:
        """Wait until all queued lines are written, but at most one second."""
        deadline = real_monotonic() + FLUSH_TIMEOUT_SECONDS
        while self._lines.unfinished_tasks and real_monotonic() < deadline:
            time.sleep(0.01)

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            # The file descriptor can be a pipe that its reader has closed. The error of the write is then ignored: this
            # log line is lost, but the server continues.
            with suppress(OSError):
                os.write(self._descriptor, f"{line}\n".encode())
            self._lines.task_done()


if __name__ == "__main__":
    sys.exit(main())

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""`faceki-sandbox`: runs a sandbox until SIGTERM or SIGINT, and prints how to reach it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Settings

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.server import FacekiSandbox

PARENT_SECONDS = 0.5
NEEDED = ("starlette", "uvicorn", "python_multipart")
HOW_TO_INSTALL = "pip install 'airflow-provider-faceki[sandbox]'"


def missing() -> list[str]:
    """What the extra would have installed and is not there."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="faceki-sandbox",
        description="A local stand-in for FACEKI. Its people, credentials and decisions are made up.",
    )
    made.add_argument("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
    made.add_argument("--port", type=_port, default=0, help="0 takes a free one (default)")
    made.add_argument(
        "--expose", action="store_true", help="first half of allowing an address that is not loopback"
    )
    made.add_argument("--i-know-this-is-a-toy", action="store_true", help="second half")
    made.add_argument("--client-id", default=DEFAULT_CLIENT_ID)
    made.add_argument("--client-secret", default=DEFAULT_CLIENT_SECRET)
    made.add_argument("--token-lifetime", type=float, default=3600, metavar="SECONDS")
    made.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before every answer")
    made.add_argument(
        "--auto-answer", type=float, metavar="SECONDS", help="links answer themselves after this time"
    )
    made.add_argument("--webhook-url", metavar="URL", help="where to tell of decisions")
    made.add_argument("--tls-cert", metavar="FILE")
    made.add_argument("--tls-key", metavar="FILE")
    made.add_argument("--port-file", type=Path, metavar="FILE", help="gets the URL once the server is ready")
    made.add_argument(
        "--exit-with-parent",
        nargs="?",
        type=int,
        const=os.getppid(),
        metavar="PID",
        help="end when the process that started this one does",
    )
    made.add_argument("--quiet", action="store_true", help="print nothing, log no requests")
    return made


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed is a whole number from 0 to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    command = parser()
    chosen = command.parse_args(arguments)
    if absent := missing():
        command.exit(2, f"faceki-sandbox needs {', '.join(absent)}: {HOW_TO_INSTALL}\n")
    if (chosen.tls_cert is None) != (chosen.tls_key is None):
        command.error("--tls-cert and --tls-key go together")
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    # Before the server starts: whoever stops us early must not meet Python's default.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        sandbox = _sandbox(chosen).start()
    except (ValueError, OSError) as wrong:
        command.exit(2, f"faceki-sandbox: {wrong}\n")
    try:
        _tell(sandbox, chosen)
        while not ended.wait(PARENT_SECONDS):
            if chosen.exit_with_parent not in (None, os.getppid()):
                break
    finally:
        sandbox.stop()
        if chosen.port_file is not None:
            chosen.port_file.unlink(missing_ok=True)
    return 0


def _sandbox(chosen: argparse.Namespace) -> FacekiSandbox:
    from airflow_provider_faceki.sandbox.control import is_loopback
    from airflow_provider_faceki.sandbox.server import ExposureError, FacekiSandbox

    if not is_loopback(chosen.host) and not (chosen.expose and chosen.i_know_this_is_a_toy):
        raise ExposureError(
            f"--host: found {chosen.host!r}, allowed is a loopback address; anything else needs both "
            "--expose and --i-know-this-is-a-toy, for anybody who reaches it can steer it"
        )
    settings = Settings(
        client_id=chosen.client_id,
        client_secret=chosen.client_secret,
        token_lifetime=chosen.token_lifetime,
        latency=chosen.latency,
        auto_answer=chosen.auto_answer,
        webhook_url=chosen.webhook_url,
    )
    return FacekiSandbox(
        settings=settings,
        host=chosen.host,
        port=chosen.port,
        tls=(chosen.tls_cert, chosen.tls_key) if chosen.tls_cert else None,
        expose=chosen.expose and chosen.i_know_this_is_a_toy,
        log=_silent if chosen.quiet else _log,
    )


def _tell(sandbox: FacekiSandbox, chosen: argparse.Namespace) -> None:
    if chosen.port_file is not None:
        _write_whole(chosen.port_file, sandbox.url + "\n")
    if chosen.quiet:
        return
    connection = shlex.quote(json.dumps(sandbox.connection()))
    print(
        f"FACEKI sandbox (a stand-in, not FACEKI) on {sandbox.url}, hosted page {sandbox.url}/kycverify/<link>"
    )
    print(f"export AIRFLOW_CONN_FACEKI_DEFAULT={connection}", flush=True)


def _write_whole(target: Path, text: str) -> None:
    """Whoever waits for the file never reads half of it."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    os.replace(name, target)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    return None


if __name__ == "__main__":
    sys.exit(main())

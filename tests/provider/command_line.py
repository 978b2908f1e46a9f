# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Helper that runs several commands of Airflow in one process, because each start of Airflow takes 5 s or more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

_RUNNER = """
import contextlib, json, logging, sys, tempfile, warnings
heard, done = [], []
class Ear(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow.cli import cli_parser
    parser = cli_parser.get_parser()
    logging.getLogger().addHandler(Ear(level=logging.WARNING))
    # A real file is needed, because Airflow 2 compares the descriptors of an exported file and of the output.
    with tempfile.TemporaryFile("w+") as out:
        for command in json.loads(sys.argv[1]):
            status, start = 0, out.tell()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                try:
                    args = parser.parse_args(command)
                    args.func(args)
                except SystemExit as end:
                    status = end.code
            out.seek(start)
            done.append([status, out.read()])
exec(sys.argv[2])
heard += [str(warning.message) for warning in caught]
print(json.dumps([done, heard]))
"""


@dataclass
class CommandResults:
    """Results of several commands.

    :param statuses: Exit status of each command; 0 means success.
    :param outputs: Output of each command.
    :param complaints: Warnings of all commands, from logging and from Python.
    """

    statuses: list[object]
    outputs: list[str]
    complaints: list[str]


def python(code: str, *arguments: str, **environment: str) -> str:
    """Run ``code`` in a separate process and return its output. The process must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def airflow(*commands: list[str], afterwards: str = "", **environment: str) -> CommandResults:
    """Run ``airflow`` once for each element of ``commands``, and then the Python code ``afterwards``."""
    printed = python(_RUNNER, json.dumps(commands), afterwards, **environment)
    done, heard = json.loads(printed.splitlines()[-1])
    return CommandResults([status for status, _ in done], [output for _, output in done], heard)

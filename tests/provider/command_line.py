# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run Airflow's command line, several commands to a process: each start of it costs five seconds and more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

_RUNNER = """
import contextlib, io, json, logging, sys, warnings
heard, done = [], []
class Ear(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow.cli import cli_parser
    parser = cli_parser.get_parser()
    logging.getLogger().addHandler(Ear(level=logging.WARNING))
    for command in json.loads(sys.argv[1]):
        status, out = 0, io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                args = parser.parse_args(command)
                args.func(args)
            except SystemExit as end:
                status = end.code
        done.append([status, out.getvalue()])
heard += [str(warning.message) for warning in caught]
print(json.dumps([done, heard]))
"""


@dataclass
class Said:
    """What came of a few commands.

    :param statuses: How each ended; 0 is well.
    :param outputs: What each printed.
    :param complaints: Warnings, logged or Python's, of all of them.
    """

    statuses: list[object]
    outputs: list[str]
    complaints: list[str]


def python(code: str, *arguments: str, **environment: str) -> str:
    """Run ``code`` in a process of its own and return what it prints; it must end well."""
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


def airflow(*commands: list[str], **environment: str) -> Said:
    """Run ``airflow`` once for each of ``commands``."""
    printed = python(_RUNNER, json.dumps(commands), **environment)
    done, heard = json.loads(printed.splitlines()[-1])
    return Said([status for status, _ in done], [output for _, output in done], heard)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Check a FACEKI Connection by ``airflow faceki check`` or ``python -m airflow_provider_faceki.check``.

The exit status is one of these numbers:

- 0: The Connection is usable.
- 1: The user must change the settings that the output names.
- 2: A call failed with all settings that the check has tried, the Connection does not exist, the report file cannot be
  opened, or the command has a wrong argument.

For every ``airflow`` command, Airflow 3.2 and later import this module to find the commands ``airflow faceki``. To keep
all these commands fast, this module imports the code of the check only when a check runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_provider_faceki import __version__
from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow_provider_faceki.api.probes import Finding

USABLE, SETTING_HAS_TO_CHANGE, CANNOT_WORK = 0, 1, 2

CHECK_HELP = "Check by free calls whether a FACEKI Connection works, and name the settings to change"
#: Flags and ``add_argument`` options of the check command.
CHECK_ARGUMENTS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("conn_id",), {"nargs": "?", "default": DEFAULT_CONN_ID, "help": "Connection (default: %(default)s)"}),
    (("--make-link",), {"action": "store_true", "help": "also make a link, which FACEKI might charge"}),
    (("--yes",), {"action": "store_true", "help": "create the link without a question"}),
    (
        ("--report",),
        {
            "metavar": "FILE",
            "help": "also write the report to this file; it contains no secrets, ids or personal data",
        },
    ),
)

_WIDTHS = (34, 62)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one Connection and return the exit status."""
    parser = argparse.ArgumentParser("python -m airflow_provider_faceki.check", description=CHECK_HELP)
    for flags, options in CHECK_ARGUMENTS:
        parser.add_argument(*flags, **options)
    return check(parser.parse_args(arguments))


def get_faceki_commands() -> list[Any]:
    """Return the commands ``airflow faceki …``. Airflow finds this function through the provider's metadata."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    check = ActionCommand(
        name="check",
        help=CHECK_HELP,
        func=lazy_load_command("airflow_provider_faceki.check.run"),
        args=[Arg(flags, **options) for flags, options in CHECK_ARGUMENTS],
    )
    return [GroupCommand(name="faceki", help="FACEKI identity verification", subcommands=[check])]


def run(arguments: argparse.Namespace) -> None:
    """Check one Connection for Airflow's command line, and exit with the exit status."""
    sys.exit(check(arguments))


def check(chosen: argparse.Namespace) -> int:
    """Check the Connection, print the findings, write the report if it is wanted, and return the exit status.

    :param chosen: Parsed command line arguments, as declared in ``CHECK_ARGUMENTS``.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
    from airflow_provider_faceki.api.probes import FREE_CALLS, Diagnosis
    from airflow_provider_faceki.hooks.faceki import FacekiHook

    # The report file is opened before the first request. If it cannot be opened, the check sends no request.
    if chosen.report is not None and not _write(chosen.report, "a", ""):
        return CANNOT_WORK
    hook = FacekiHook(chosen.conn_id)
    try:
        settings = hook.settings
    except ConfigurationError as error:
        print(error)
        return SETTING_HAS_TO_CHANGE
    except ValidationError as error:  # the id is empty or a word such as None
        print(error)
        return CANNOT_WORK
    except AirflowNotFoundException:
        print(f"There is no Connection {chosen.conn_id!r}.")
        return CANNOT_WORK
    print(
        f"Checking Connection {chosen.conn_id!r} at {settings.base_url} by calls that FACEKI does not charge:"
    )
    for call in FREE_CALLS:
        print(f"  - {call}")
    make_link = chosen.make_link and (chosen.yes or _agrees())
    findings = []
    for finding in Diagnosis(hook.get_conn(), settings.workflow_id).findings(make_link=make_link):
        findings.append(finding)
        _print_row(finding)
    status = exit_status(findings)
    for line in _conclusion(chosen.conn_id, settings.base_url, findings, status):
        print(line)
    if chosen.report is not None and _write(chosen.report, "w", report(findings, status)):
        print(f"Report written to {chosen.report}; it contains no secret, id or personal data.")
    return status


def _write(path: str, mode: str, text: str) -> bool:
    """Write a text to a file. If this fails, print the reason and return ``False``."""
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"The report cannot be written: {path!r}: {error.strerror}")
        return False
    return True


def exit_status(findings: Sequence[Finding]) -> int:
    """Return the exit status of the check."""
    levels = {finding.level for finding in findings}
    if "broken" in levels:
        return CANNOT_WORK
    return SETTING_HAS_TO_CHANGE if "change" in levels else USABLE


def report(findings: Sequence[Finding], status: int) -> str:
    """Return the report as Markdown. The caller writes it to a file, and a user can paste it into a bug report."""
    rows = ["| question | finding | source of uncertainty | setting to change |", "|---|---|---|---|"]
    rows += [
        f"| {each.question} | {each.level}: {_cell(each.answer)} | {each.uncertainty} "
        f"| {_cell(_shown(each.settings))} |"
        for each in findings
    ]
    head = f"# FACEKI check\n\nairflow-provider-faceki {__version__}, exit status {status}\n\n"
    return head + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _shown(settings: Any) -> str:
    return f"`{json.dumps(dict(settings))}`" if settings else ""


def _agrees() -> bool:
    try:
        answer = input("FACEKI might charge for a link, even if it is not used. Create one? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}


def _print_row(finding: Finding) -> None:
    left = textwrap.wrap(finding.question, _WIDTHS[0]) or [""]
    right = textwrap.wrap(f"{finding.level}: {finding.answer}", _WIDTHS[1], break_long_words=False) or [""]
    right += textwrap.wrap(f"why: {finding.uncertainty}", _WIDTHS[1])
    if finding.settings:
        right.append(f"set: {json.dumps(dict(finding.settings))}")
    print("-" * sum(_WIDTHS))
    for number in range(max(len(left), len(right))):
        first, second = (side[number] if number < len(side) else "" for side in (left, right))
        print(f"{first:<{_WIDTHS[0]}}{second}".rstrip())


def _conclusion(conn_id: str, base_url: str, findings: Sequence[Finding], status: int) -> list[str]:
    lines = ["=" * sum(_WIDTHS)]
    settings = {name: value for finding in findings for name, value in finding.settings.items()}
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if settings and os.environ.get(variable):
        lines += _change_variable(variable, settings)
    elif settings:
        lines += _change_connection(conn_id, base_url, settings)
    return [
        *lines,
        {
            USABLE: "The Connection can be used as it is.",
            SETTING_HAS_TO_CHANGE: "The Connection can be used once these settings are changed.",
            CANNOT_WORK: "The Connection cannot work: see what is marked broken above.",
        }[status],
    ]


def _change_variable(variable: str, settings: Mapping[str, str]) -> list[str]:
    """Return the text that tells the user how to change a Connection that is defined by an environment variable.

    Airflow prefers the variable to its database, so a change in the database has no effect.
    """
    value = os.environ[variable]
    lines = [
        f"The Connection comes from the environment variable {variable}, which has priority over "
        "Airflow's database.",
        'Add these keys to "extra" in the variable\'s JSON, wherever the variable is set:',
        f"  {json.dumps(settings)}",
    ]
    if value.lstrip().startswith("{"):
        return lines
    if "__extra__=" in value:
        lines[1] = "Add these keys to the JSON of __extra__ in the variable's URI, percent-encoded:"
        return lines
    return [*lines, "or, since the variable is a URI, add them to its query:", f"  {urlencode(settings)}"]


def _change_connection(conn_id: str, base_url: str, settings: Mapping[str, str]) -> list[str]:
    """Return the text that tells the user how to change a Connection that no environment variable defines."""
    connection = {
        "conn_type": "faceki",
        "host": base_url,
        "login": "CLIENT_ID",
        "password": "CLIENT_SECRET",
        "extra": settings,
    }
    name = shlex.quote(conn_id)
    return [
        "Add these keys to the Connection's extra, in the form under Extra Fields JSON:",
        f"  {json.dumps(settings)}",
        "or make the Connection again, with your own id, secret and other settings:",
        f"  airflow connections delete {name}",
        f"  airflow connections add {name} --conn-json {shlex.quote(json.dumps(connection))}",
    ]


if __name__ == "__main__":
    sys.exit(main())

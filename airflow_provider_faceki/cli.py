# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The commands ``airflow faceki …`` of Airflow 3.2 and later.

Airflow imports this module for every command. Therefore it only declares the commands, and imports their code later.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID

CHECK_HELP = "Check by free calls whether a FACEKI Connection works, and name the settings to change"
#: Flags and ``add_argument`` options of the check command.
CHECK_ARGUMENTS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("conn_id",), {"nargs": "?", "default": DEFAULT_CONN_ID, "help": "Connection (default: %(default)s)"}),
    (("--make-link",), {"action": "store_true", "help": "also make a link, which FACEKI might charge"}),
    (("--yes",), {"action": "store_true", "help": "do not ask before that"}),
    (("--report",), {"metavar": "FILE", "help": "also write the report, without secrets, ids and people"}),
)


def get_faceki_commands() -> list[Any]:
    """Return the group of commands. The provider's metadata names this function."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    check = ActionCommand(
        name="check",
        help=CHECK_HELP,
        func=lazy_load_command("airflow_provider_faceki.check.run"),
        args=[Arg(flags, **options) for flags, options in CHECK_ARGUMENTS],
    )
    return [GroupCommand(name="faceki", help="FACEKI identity verification", subcommands=[check])]

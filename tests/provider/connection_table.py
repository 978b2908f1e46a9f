# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The table of fields in ``docs/connection.md``, generated from the schema.

``python -m tests.provider.connection_table`` writes the table into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_faceki.connection.form import stored_form
from airflow_provider_faceki.connection.schema import SPECS, FieldSpec

PAGE = Path(__file__).parents[2] / "docs" / "connection.md"


def connection_table() -> str:
    """Return all fields as a Markdown table."""
    rows = ["| form field | stored in | default | meaning |", "|---|---|---|---|"]
    rows += [_row(name, spec) for name, spec in SPECS.items()]
    return "\n".join(rows) + "\n"


def _row(name: str, spec: FieldSpec) -> str:
    default = "required" if spec.required else "not set"
    if spec.default is not None:
        default = f"`{stored_form(spec.default)}`"
    meaning = spec.help
    if spec.choices:
        lead = "Allowed in the list:" if spec.kind == "words" else "One of"
        meaning += f" {lead} " + ", ".join(f"`{choice}`" for choice in spec.choices) + "."
    if spec.limits:
        meaning += f" From {spec.limits[0]} to {spec.limits[1]}."
    label = spec.label if spec.in_form else "(*Extra Fields JSON*)"
    return f"| {label} | {spec.column or f'extra `{name}`'} | {default} | {meaning} |"


def main() -> None:
    """Replace the table in the page."""
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(r"\| form field \|(.*\n)+?(?=\n)", lambda _: connection_table(), page, count=1)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

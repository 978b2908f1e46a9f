# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What becomes of each column of the tables: is it kept, dropped or hashed?"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from airflow_provider_faceki.api.errors import ConfigurationError, ValidationError
from airflow_provider_faceki.api.tables import TABLES, Column

POLICIES = ("keep", "drop", "hash")


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of each column.

    :param choices: ``keep``, ``drop`` or ``hash`` by ``table.column`` or ``table.*``; the closer name wins.
        Default for the rest: ids, decisions, codes, flags and times are kept, all about the person is dropped.
    :param hash_key: Key for ``hash``, so that the same value gives the same hash in every run.
    :raises ValidationError: a name or a word in ``choices`` is unknown.
    :raises ConfigurationError: something is to be hashed, and there is no key.
    """

    choices: Mapping[str, str]
    hash_key: str | None = None

    def __post_init__(self) -> None:
        check_choices(self.choices)
        if "hash" in self.choices.values() and not self.hash_key:
            raise ConfigurationError(
                "personal_data asks for hashes: set pii_hash_key, 32 or more characters, in the Connection's extra"
            )

    def of(self, table: str, column: Column) -> str:
        """Return what becomes of a column."""
        default = "drop" if column.personal else "keep"
        # The key ties the tables together, so a star does not touch it.
        starred = self.choices.get(f"{table}.*", default) if column.personal else default
        return self.choices.get(f"{table}.{column.name}", starred)

    def columns(self, table: str) -> tuple[Column, ...]:
        """Return the columns that are written; a hashed one is text."""
        return tuple(
            column._replace(type="text") if self.of(table, column) == "hash" else column
            for column in TABLES[table]
            if self.of(table, column) != "drop"
        )

    def row(self, table: str, values: Mapping[str, object]) -> dict[str, object]:
        """Return a row with what may be written of ``values``, dates and times as ISO 8601."""
        row: dict[str, object] = {}
        for column in TABLES[table]:
            choice = self.of(table, column)
            if choice != "drop":
                value = values.get(column.name)
                told = value.isoformat() if isinstance(value, date) else value
                row[column.name] = self._hashed(told) if choice == "hash" else told
        return row

    def _hashed(self, value: object) -> str | None:
        if value is None:
            return None
        # So that spelling alone (case, spaces, composed letters) makes no other person.
        text = " ".join(unicodedata.normalize("NFKC", str(value)).casefold().split())
        return hmac.new((self.hash_key or "").encode(), text.encode(), hashlib.sha256).hexdigest()


def check_choices(choices: Mapping[str, str]) -> None:
    """Refuse a policy that names no column, or no choice.

    :raises ValidationError: it does.
    """
    names = {f"{table}.{column.name}" for table, columns in TABLES.items() for column in columns}
    names |= {f"{table}.*" for table in TABLES}
    for name, choice in choices.items():
        if name not in names:
            raise ValidationError(f"personal_data: no column {name!r}; write table.column or table.*")
        if choice not in POLICIES:
            raise ValidationError(
                f"personal_data: {name} must be one of {', '.join(POLICIES)}, not {choice!r}"
            )

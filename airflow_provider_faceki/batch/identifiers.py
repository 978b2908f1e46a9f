# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Identifiers that another task hands over, as rows: read a slice at a time, for there may be as many as in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.manifest import Row

#: Identifiers that are asked of Airflow's database at once, where they are XComs of mapped tasks.
SLICE = 500


def checked(identifiers: object) -> Sequence[object]:
    """Return ``identifiers`` if they are some, be it a list or Airflow's lazy sequence of XComs.

    :raises ValidationError: they are not; a text is none, though it could be read letter by letter.
    """
    if isinstance(identifiers, str | bytes) or not isinstance(identifiers, Sequence):
        raise ValidationError(
            f"identifiers must be a list, not {type(identifiers).__name__}: hand over a task's output "
            "(`task.output`), or let the DAG render templates as native objects"
        )
    return identifiers


def rows(identifiers: Sequence[object], field: str) -> Iterator[Row]:
    """Yield identifiers as rows.

    :param identifiers: Each is one, or an object that holds it.
    :param field: Under which name.
    """
    for start in range(0, len(identifiers), SLICE):
        for number, item in enumerate(identifiers[start : start + SLICE], start + 1):
            value = item.get(field) if isinstance(item, Mapping) else item
            text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
            if text:
                yield Row(number, {"record_identifier": text})
            elif value is None or value == "":
                yield Row(number, {})
            else:
                problem = f"an identifier must be text, or an object that holds it under {field!r}"
                yield Row(number, {}, f"{problem}, not {type(value).__name__}")

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Can this argument of a batch operator work? Asked while the DAG is parsed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeGuard

from airflow_provider_faceki.batch.manifest import COLUMNS

#: Requests in flight at the most: each is a thread.
MOST_AT_ONCE = 256


def check_one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Refuse what is none of these words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def check_concurrency(name: str, value: object) -> None:
    """Refuse what is no number of threads."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_AT_ONCE:
        raise ValueError(f"{name} must be a whole number from 1 to {MOST_AT_ONCE}, not {value!r}")


def check_share(name: str, value: object) -> None:
    """Refuse what is no share."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number between 0 and 1, not {value!r}")


def check_columns(columns: Mapping[str, object] | None) -> None:
    """Refuse names that no column has here, and columns without a name."""
    if unknown := set(columns or ()) - set(COLUMNS):
        raise ValueError(f"columns: unknown {', '.join(sorted(unknown))}; allowed are {', '.join(COLUMNS)}")
    for name, column in (columns or {}).items():
        if not isinstance(column, str) or not column:
            raise ValueError(f"columns: {name} must be called something in the manifest, not {column!r}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no span of time."""
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def named(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return what all columns are called in the manifest, by what they are called here."""
    return {name: (columns or {}).get(name, name) for name in COLUMNS}

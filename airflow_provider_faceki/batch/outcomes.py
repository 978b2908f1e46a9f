# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What can become of one row of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.journal import Begun
from airflow_provider_faceki.batch.manifest import Row

#: What to do about an error row, by the error's place in the tree.
_ADVICE: tuple[tuple[str, str], ...] = (
    ("InputError", "mend the row in a new manifest"),
    ("RequestRefusedError", "mend the row in a new manifest"),
    ("WorkflowError", "mend the workflow in FACEKI's portal"),
    ("VerificationError", "ask the person for other images"),
    ("NotFoundError", "check the id, or ask again later"),
    ("AnswerError", "ask FACEKI what the code means"),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """The row has a result, and a whole record if that was asked for."""

    line: Mapping[str, object]
    record: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The row has an error of its own, which another try would only find again."""

    line: Mapping[str, object]

    @property
    def key_identifier(self) -> str | None:
        """The identifier by which the row is known; a duplicate goes by its number."""
        if self.line["code"] == "DUPLICATE_IDENTIFIER":
            return None
        found = self.line["record_identifier"]
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What became of the row is not known."""

    row: Row
    begun: Begun
    error: api.FacekiError


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing more can be done for any row."""

    error: api.FacekiError


Outcome: TypeAlias = Finished | Failed | Unsettled | Stopped


def bad_row(row: Row, *, is_first: bool) -> Failed | None:
    """Return the error of a row that cannot be sent at all, or ``None``."""
    identifier = row.values.get("record_identifier")
    if row.problem is not None:
        return _failed(row, "BAD_ROW", row.problem, "mend the row in a new manifest")
    if identifier is None:
        return _failed(
            row, "NO_IDENTIFIER", "the row has no identifier", "give each row an identifier of its own"
        )
    if not is_first:
        return _failed(
            row,
            "DUPLICATE_IDENTIFIER",
            "an earlier row has this identifier",
            "nothing, if it is the same person; else give the row an identifier of its own",
        )
    return None


def failure(row: Row, error: api.FacekiError, begun: Begun) -> Outcome:
    """Return what an error means for the row, or for the batch."""
    if isinstance(error, api.QuotaError | api.AuthenticationError | api.ConfigurationError | api.TlsError):
        return Stopped(error)
    if error.retry_may_help or isinstance(error, api.OutcomeUnknownError):
        return Unsettled(row, begun, error)
    kind = type(error).__name__
    advice = next(advice for name, advice in _ADVICE if isinstance(error, getattr(api, name)))
    code = str(error.code) if error.code is not None else kind.removesuffix("Error").upper()
    return _failed(row, code, error.message, advice)


def _failed(row: Row, code: str, problem: str, advice: str) -> Failed:
    return Failed(
        {
            "row": row.number,
            "record_identifier": row.values.get("record_identifier"),
            "code": code,
            "problem": problem,
            "what_to_do": advice,
        }
    )

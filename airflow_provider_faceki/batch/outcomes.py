# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What can become of one row of a batch, and what is told of a row that is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import check_identifier
from airflow_provider_faceki.batch.journal import DUPLICATE
from airflow_provider_faceki.batch.manifest import Row

#: What to do about an error row, by the error's place in the tree.
_ADVICE: tuple[tuple[type[api.FacekiError], str], ...] = (
    (
        api.OutcomeUnknownError,
        "look for it in FACEKI's portal; if it is not there, put the row into a new batch, under a new identifier",
    ),
    (api.ValidationError, "mend the row, or the picture that it names, and put it into a new batch"),
    (api.InvalidRequestError, "mend the row, and put it into a new batch"),
    (api.WorkflowError, "mend the workflow in FACEKI's portal, and put the row into a new batch"),
    (api.VerificationError, "ask the person for other pictures"),
    (api.LinkError, "make another link"),
    (api.NotFoundError, "check the id, or ask again later"),
    (api.ResponseError, "ask FACEKI what the code means"),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """The row has a result."""

    line: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """The row has an error of its own, which another try would only find again.

    :param line: What is told of it.
    :param refusal: Set where FACEKI's refusal may not be the row's fault; see ``doubt.py``.
    """

    line: Mapping[str, object]
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The whole record of a row that has a result, as far as FACEKI keeps one."""

    line: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Later:
    """The row is for later.

    :param row: The row.
    :param error: What happened; ``None`` if nothing did, and there is only to be waited.
    :param sent_by: Unix time at which it had been sent, if it was; ``None`` if what was begun surely was not sent.
    """

    row: Row
    error: Exception | None
    sent_by: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What FACEKI may as well refuse of everybody.

    :param error: What it said.
    :param later: What becomes of the row if it says so of everybody.
    """

    error: api.FacekiError
    later: Later


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing more can be done for any row.

    :param row: The row that met it.
    :param error: What happened.
    :param sent_by: As for :class:`Later`.
    """

    row: Row
    error: api.FacekiError
    sent_by: float | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The work for a row ended in a way that nobody foresaw; whether it was sent is not known."""

    error: Exception


Outcome: TypeAlias = Finished | Failed | Recorded | Later | Stopped | Broken


def bad_row(row: Row) -> tuple[str, str, str] | None:
    """Return code, problem and advice of a row that cannot be asked about at all, or ``None``."""
    if row.problem is not None:
        return "BAD_ROW", row.problem, "mend the row, and put it into a new batch"
    identifier = row.values.get("record_identifier")
    # One of FACEKI's SDKs sends this word where there is no identifier, so it stands for none.
    if identifier is None or identifier == "undefined":
        return "NO_IDENTIFIER", "the row has no identifier", "give each row an identifier of its own"
    try:
        check_identifier("the identifier", identifier)
    except api.ValidationError as error:
        return "BAD_IDENTIFIER", error.message, "give each row an identifier of its own"
    return None


def of_bad_row(row: Row, problem: tuple[str, str, str]) -> Mapping[str, object]:
    """Return the line of a row that :func:`bad_row` found; such a row goes by its number."""
    return _line(row.number, None, *problem)


def of_duplicate(row: Row) -> Mapping[str, object]:
    """Return the line of a row whose identifier an earlier one has."""
    return _line(
        row.number,
        row.values["record_identifier"],
        DUPLICATE,
        "an earlier row has this identifier",
        "nothing, if it is the same person; else give the row an identifier of its own",
    )


def of_error(row: Row, error: api.FacekiError) -> Mapping[str, object]:
    """Return the line of a row that FACEKI, or what it names, has failed for good."""
    kind = type(error).__name__.removesuffix("Error")
    code = str(error.code) if error.code is not None else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).upper()
    advice = next(advice for kind, advice in _ADVICE if isinstance(error, kind))
    return _line(row.number, row.values.get("record_identifier"), code, error.message, advice)


def of_picture(row: Row, error: OSError) -> Mapping[str, object]:
    """Return the line of a row one of whose pictures its storage never gives."""
    advice = "see why the storage does not give the picture, and put the row into a new batch"
    return _line(row.number, row.values.get("record_identifier"), "STORAGE", str(error), advice)


def refusal(row: Row, error: api.FacekiError, sent_by: float | None) -> Refusal | None:
    """Return ``error`` as one that may be everybody's, if it may: a workflow that the row itself names is its own."""
    kinds = api.WorkflowError | api.InvalidRequestError | api.NotFoundError
    if isinstance(error, api.WorkflowError) and "workflow_id" in row.values:
        return None
    return Refusal(error, Later(row, None, sent_by)) if isinstance(error, kinds) else None


def is_for_all(error: api.FacekiError) -> bool:
    """Whether what happened to one row would happen to every other."""
    kinds = api.QuotaError | api.AuthenticationError | api.ConfigurationError | api.TlsError
    return isinstance(error, kinds)


def is_passing(error: api.FacekiError) -> bool:
    """Whether what happened may not happen again."""
    return error.is_transient or isinstance(error, api.OutcomeUnknownError)


def _line(number: int, identifier: str | None, code: str, problem: str, advice: str) -> Mapping[str, object]:
    return {
        "row": number,
        "record_identifier": identifier,
        "code": code,
        "problem": problem,
        "what_to_do": advice,
    }

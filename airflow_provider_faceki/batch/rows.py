# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rows of a manifest: their keys in the journal, their possible outcomes, and the JSON line of a row with an error.

If FACEKI reported an error number, this number is the ``code`` in the line. Otherwise the code is a word such as
``INVALID_INPUT``. ``docs/batch.md`` lists these words. They are not derived from class names, because a class can get a
new name, but the words must never change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar

from airflow_provider_faceki.api.errors import (
    FacekiError,
    InvalidRequestError,
    LinkError,
    NotFoundError,
    OutcomeUnknownError,
    UnexpectedResponseError,
    ValidationError,
    VerificationError,
    WorkflowError,
)
from airflow_provider_faceki.api.values import check_identifier, is_missing
from airflow_provider_faceki.storage_interface import NotAllowedError

T = TypeVar("T")

#: A long loop calls a function ``checkpoint`` whenever it has processed this number of items, for example to stop a
#: killed task.
ITEMS_PER_CHECKPOINT = 1000
#: For each error class: the word that is written as the error code if FACEKI reported no error number, and advice for
#: the user. The first matching class is used, so a class is listed before its base class.
_ERRORS: tuple[tuple[type[FacekiError], str, str], ...] = (
    (
        OutcomeUnknownError,
        "OUTCOME_UNKNOWN",
        "look for it in FACEKI's portal; if it is not there, put the row into a new batch, under a new identifier",
    ),
    (
        NotAllowedError,
        "INVALID_INPUT",
        "put the image into an allowed folder, or correct the task's setting; then put the row into a new batch",
    ),
    (
        ValidationError,
        "INVALID_INPUT",
        "correct the row, or the image that it names, and put it into a new batch",
    ),
    (InvalidRequestError, "INVALID_REQUEST", "correct the row, and put it into a new batch"),
    (
        WorkflowError,
        "WORKFLOW",
        "correct the workflow id, or the workflow in FACEKI's portal, and put the row into a new batch",
    ),
    (VerificationError, "NOT_PASSED", "ask the person for other images"),
    (LinkError, "LINK", "make another link"),
    (NotFoundError, "NOT_FOUND", "check the id, or ask again later"),
    (UnexpectedResponseError, "UNEXPECTED_RESPONSE", "check the URLs and paths in the Connection"),
)


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of a manifest.

    :param number: Number of the row in the manifest, starting at 1. A header and blank lines are not counted.
    :param values: Text by column, without surrounding whitespace. Empty values are omitted.
    :param problem: Reason why the row cannot be read. If it is set, ``values`` is empty.
    :param content_hash: Hash of the content of a row that cannot be read. It is empty if the content is unknown.
    """

    number: int
    values: Mapping[str, str]
    problem: str | None = None
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that cannot be read.

    :param problem: Reason why the row cannot be read.
    :param content: Text or bytes of the row, as far as they are known. The content distinguishes this row from other
        unreadable rows.
    """

    problem: str
    content: str | bytes = field(default=b"", repr=False)


ParsedRow: TypeAlias = "Mapping[str, object] | UnreadableRow"

#: Function that reads the rows of a batch from their beginning.
ReadRows = Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Outcome: the row was verified, or its records were fetched. ``line`` is the output line of the row."""

    line: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """Outcome: the row has a permanent error. Another try would find the same error.

    :param line: JSON line for the row in the output folder ``errors``.
    :param refusal: The row, the error and the time of sending, if the cause is possibly a mistake in the whole batch.
        The guard in ``error_guard.py`` needs them. ``None`` if only this row can be the cause.
    """

    line: Mapping[str, object]
    refusal: Abort | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """Outcome: FACEKI has answered the request for the full record of a verified row.

    ``line`` contains the record. If FACEKI has no record, the line contains ``None`` in place of the record.
    """

    line: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Deferred:
    """Outcome: the row has no result and no error yet. It is processed again, later in this try or in the next try.

    :param row: The row.
    :param error: Exception that prevented the processing. It is ``None`` if the row only has to wait.
    :param sent_by: Latest Unix time at which the row was possibly sent. ``None`` means that FACEKI has certainly not
        verified the row since its last intent (the entry in the journal that says that the row is about to be sent). So
        this intent is cancelled. Earlier intents of the row remain.
    :param is_pending: True if FACEKI already has a verification with the row's identifier, but has not decided it yet.
        In this case, the row was not sent.
    """

    row: Row
    error: Exception | None
    sent_by: float | None
    is_pending: bool = False


@dataclass(frozen=True, slots=True)
class Abort:
    """Outcome: an error, such as used-up credit, that would affect every further row. The batch stops.

    :param row: The row whose processing caused the error.
    :param error: Reason why the batch stops.
    :param sent_by: Latest Unix time at which the row was possibly sent; see :class:`Deferred`.
    """

    row: Row
    error: FacekiError
    sent_by: float | None


@dataclass(frozen=True, slots=True)
class Crashed:
    """Outcome: the processing of the row raised an unexpected exception. The row was possibly sent."""

    error: Exception


Outcome: TypeAlias = Succeeded | Failed | Recorded | Deferred | Abort | Crashed


def row_key(identifier: str) -> str:
    """Return the journal key of a row with this identifier."""
    return f"id {identifier}"


def invalid_row_key(row: Row, code: str) -> str:
    """Return the journal key of a row that cannot be processed.

    The key contains a hash of the row. So two different rows have different keys, even if they have the same number in
    two manifests of the same batch.

    :param code: Error code of the row.
    """
    content = json.dumps([row.problem, row.content_hash, sorted(row.values.items())])
    return f"row {row.number} {code} {short_hash(content)}"


def short_hash(content: str | bytes) -> str:
    """Return a short hash of a row's content. Two rows with different contents almost always have different hashes."""
    # The hash has only 32 bits. Two given rows almost never have the same hash. But among all possible contents, very
    # many have the same hash. Therefore nobody can find out the content by trying all possible contents.
    data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=4).hexdigest()


def check_row(row: Row) -> tuple[str, str, str] | None:
    """Return the error code, the problem and the advice for an invalid row. For a valid row, return ``None``.

    A row is invalid if it cannot be read or has no valid identifier.
    """
    if row.problem is not None:
        return "BAD_ROW", row.problem, "correct the row, and put it into a new batch"
    identifier = row.values.get("record_identifier")
    if is_missing(identifier):
        return "NO_IDENTIFIER", "the row has no identifier", "give each row its own identifier"
    try:
        check_identifier("the identifier", identifier)
    except ValidationError as error:
        return "BAD_IDENTIFIER", error.message, "give each row its own identifier"
    return None


class Triage(NamedTuple):
    """Result of the check whether a row can be processed.

    :param key: Key of the row in the journal. It is made from the identifier of the row. If the row cannot be
        processed, the key is made from the row number, the error code and a hash of the row instead.
    :param line: Error line if the row cannot be processed, otherwise ``None``. The line never contains an invalid
        identifier.
    :param is_first: Whether ``key`` is new in this reading of the manifest. An export counts the rows with new keys.
        ``is_first`` does not show whether an identifier is repeated: the key of a row that repeats an identifier is
        made from the row number, so this key is usually new.
    """

    key: str
    line: Mapping[str, object] | None
    is_first: bool


def triage(
    row: Row, mark_seen: Callable[[str], bool], convert_key: Callable[[str], str] = lambda key: key
) -> Triage:
    """Check whether a row can be processed. Return its key in the journal, and an error line if it cannot be processed.

    A row cannot be processed if it is unreadable, if its identifier is missing or not valid, or if an earlier row has
    the same identifier.

    :param row: The row.
    :param mark_seen: Function that records a key, and returns whether the key is new in this reading of the manifest.
    :param convert_key: Function that is applied to each key. An export passes a hash function, because an identifier
        can be a secret link. Default: keys are not changed.
    """
    identifier, problem = None, check_row(row)
    if problem is None:
        identifier = row.values["record_identifier"]
        key = convert_key(row_key(identifier))
        if mark_seen(key):
            return Triage(key, None, is_first=True)
        problem = (
            "DUPLICATE_IDENTIFIER",
            "an earlier row has this identifier",
            "nothing, if it is the same person; otherwise give the row its own identifier",
        )
    key = convert_key(invalid_row_key(row, problem[0]))
    return Triage(key, _line(row.number, identifier, *problem), mark_seen(key))


def error_line(row: Row, error: FacekiError) -> Mapping[str, object]:
    """Return the line of a row with an error for the output folder ``errors``. The caller adds the field ``billed``.

    The error has one of three reasons. FACEKI has refused the row, the row contains an invalid value or image, or the
    outcome of the row remains unknown.
    """
    # If no class in ``_ERRORS`` matches the error, FACEKI has reported an error number that no source explains. The
    # error line contains this number as its code. Therefore no word such as INVALID_INPUT is needed as the code.
    unexplained = "", "ask FACEKI what the code means"
    word, advice = next(
        ((word, advice) for kind, word, advice in _ERRORS if isinstance(error, kind)), unexplained
    )
    code = word if error.code is None else str(error.code)
    return _line(row.number, row.values.get("record_identifier"), code, error.message, advice)


def storage_line(row: Row, error: Exception) -> Mapping[str, object]:
    """Return the line of a row whose image cannot be read, for the output folder ``errors``, without ``billed``."""
    advice = "check why the storage does not return the image, and put the row into a new batch"
    return _line(row.number, row.values.get("record_identifier"), "STORAGE", str(error), advice)


def _line(number: int, identifier: str | None, code: str, problem: str, advice: str) -> Mapping[str, object]:
    return {
        "row": number,
        "record_identifier": identifier,
        "code": code,
        "problem": problem,
        "what_to_do": advice,
    }


def with_checkpoints(items: Iterable[T], checkpoint: Callable[[], object]) -> Iterator[T]:
    """Yield the items. After every 1000 items, call the function ``checkpoint``, for example to stop a killed task."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_CHECKPOINT == 0:
            checkpoint()

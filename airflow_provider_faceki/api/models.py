# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI's verification: its decision, its record, and the part of the record without personal data.

Field names: https://docs.faceki.com/data-fields/verification-data and
https://docs.faceki.com/api-integration/verification-apis/fetch-records . Other spellings of them are understood too
(``request_id``, ``RequestID``), since nobody has compared the documents with the live service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypedDict

from airflow_provider_faceki.api.codes import CODES, code_name
from airflow_provider_faceki.api.protocol.fields import as_flag, field, has_field, plain
from airflow_provider_faceki.api.values import (
    Json,
    as_code,
    as_code_name,
    as_faceki_id,
    as_identifier,
    as_link_id,
    as_word,
    is_missing,
)

#: What a decision is called that is no short word.
OTHER = "OTHER"

#: Where a decision stands that is not under ``decision``; here only a documented word is taken for one.
_OTHER_DECISION_FIELDS = (
    "status",
    "verification_status",
    "kyc_status",
    "verdict",
    "outcome",
    "final_decision",
    "result",
)
# One of these makes an object a record; of the weaker ones it takes two.
_RECORD_FIELDS = frozenset(
    {
        *(
            "requestid",
            "recordidentifier",
            "decision",
            "documentdata",
            "documentdataconfidence",
            "selfiedata",
        ),
        *("verificationsummary", "errorcodes", "faceid"),
    }
)
_WEAK_RECORD_FIELDS = frozenset(
    {"link", "createdat", "updatedat", "images", "aml", "warnings", "notes", "devicedetails"}
)
_CREATED_FIELDS = ("createdAt", "created", "created_on", "creationDate")
_CODE_FIELDS = ("code", "errorCode", "error_code", "responseCode", "statusCode", "id", "value")
_CODE_BY_NAME = {code.name: number for number, code in CODES.items()}

# Unix times in seconds from 2001 to 2286; a thousand times that is the same in milliseconds.
_MIN_EPOCH_SECONDS, _MAX_EPOCH_SECONDS = 1e9, 1e10
# How much later than it reads in UTC a time without a zone may be: 14 hours of zone, and a day if it names no hour.
_MAX_ZONE_ERROR_SECONDS = 38 * 3600.0


class Decision(StrEnum):
    """FACEKI's verdict.

    A word that FACEKI has not documented becomes a member of its own. What is no word becomes ``OTHER``, since it may
    be a sentence about the person. The three documented words are those of the webhook page:
    https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure .
    """

    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    REVIEW = "REVIEW"

    @classmethod
    def _missing_(cls, value: object) -> Decision | None:
        if not isinstance(value, str) or not value.strip():
            return None
        word = as_word(value) or OTHER
        known = cls.__members__.get(word.upper())
        if known is not None:
            return known
        # Made anew each time and never registered: what an answer holds must not grow the enum.
        unknown = str.__new__(cls, word)
        unknown._name_ = word
        unknown._value_ = word
        return unknown

    @property
    def is_final(self) -> bool:
        """Whether no further change is expected: true for all but REVIEW.

        An undocumented word counts as final. A pipeline that sees it at once can route it to a person; one that waits
        for a documented word might wait for ever.
        """
        return self is not Decision.REVIEW


class CodeSummary(TypedDict):
    """An error code with its published name; each is ``None`` where it is not known."""

    code: int | None
    name: str | None


class Summary(TypedDict):
    """The part of a record that is safe in XCom: no name, document, image or free text."""

    request_id: str | None
    record_identifier: str | None
    link: str | None
    decision: str | None
    error_codes: list[CodeSummary]
    verification_summary: dict[str, bool]
    created_at: str | None
    updated_at: str | None


def is_record(document: Mapping[str, Json]) -> bool:
    """Return whether an object is a record: it has at least one field that only records have."""
    if document.get("requestId") or document.get("decision"):
        return True
    names = {plain(key) for key, value in document.items() if value not in (None, "", [], {})}
    if names & _RECORD_FIELDS or len(names & _WEAK_RECORD_FIELDS) > 1:
        return True
    return _known_decision(document.get("status")) is not None


@dataclass(frozen=True, slots=True, repr=False)
class VerificationRecord:
    """One verification of one person, whole.

    The properties, and so summaries, log lines and errors, hold only what looks like an id, a decision word or a code.
    Personal data and free text are in :attr:`document` alone.

    :param document: The record as FACEKI sent it, every unknown field included. FACEKI sends ages and dates as text,
        often empty, and ``*_iso`` as two letters, ``*_iso2`` as three.
    """

    document: Mapping[str, Json]

    @classmethod
    def from_fields(
        cls,
        *,
        record_identifier: str | None,
        request_id: str | None,
        decision: str | None,
        codes: Iterable[int],
    ) -> VerificationRecord:
        """Return a record with these fields alone: FACEKI has sent none, or it was not kept.

        :param record_identifier: The caller's id.
        :param request_id: FACEKI's id.
        :param decision: The verdict.
        :param codes: The codes that explain it.
        """
        items: list[Json] = [{"code": code, "name": code_name(code)} for code in codes]
        return cls(
            {
                "record_identifier": record_identifier,
                "requestId": request_id,
                "decision": decision,
                "errorCodes": items,
            }
        )

    @property
    def request_id(self) -> str | None:
        """FACEKI's own id of this verification (a UUID); ``None`` if what it sent does not look like an id."""
        return as_faceki_id(field(self.document, "requestId"))

    @property
    def record_identifier(self) -> str | None:
        """The caller's id, if one was given; a word for "missing" is none (one SDK sends ``undefined``)."""
        return as_identifier(self._sent("record_identifier"))

    @property
    def link(self) -> str | None:
        """The id of the link that the person used. Who knows it can act on the link, so do not log it."""
        return as_link_id(self._sent("link"))

    @property
    def face_id(self) -> str | None:
        """FACEKI's id of the person, the same over all verifications of that person."""
        return as_faceki_id(field(self.document, "face_id"))

    @property
    def decision(self) -> Decision | None:
        """The verdict; ``None`` while there is none.

        It is read from ``decision``. Where that is missing, a documented word is also taken from ``status`` and the
        like, or from the ``decision`` of an object within the record.
        """
        word = _decision_text(field(self.document, "decision"))
        if word is not None:
            return Decision(word)
        others = (_known_decision(field(self.document, name)) for name in _OTHER_DECISION_FIELDS)
        known = next((decision for decision in others if decision is not None), None)
        if known is None and not has_field(self.document, "decision"):
            inner = (item for item in self.document.values() if isinstance(item, dict))
            found = {_known_decision(_decision_text(field(item, "decision"))) for item in inner} - {None}
            known = found.pop() if len(found) == 1 else None
        return known

    @property
    def error_codes(self) -> tuple[int, ...]:
        """The codes that explain the decision: numbers, or the numbers of published names."""
        return tuple(code["code"] for code in self.code_summaries if code["code"] is not None)

    @property
    def code_summaries(self) -> list[CodeSummary]:
        """The codes that explain the decision, with their published names; a name without a number is one too."""
        return list(self._codes())

    @property
    def flags(self) -> dict[str, bool]:
        """``verification_summary``: which checks passed."""
        sent = field(self.document, "verification_summary")
        flags = {name: as_flag(value) for name, value in sent.items()} if isinstance(sent, dict) else {}
        return {name: flag for name, flag in flags.items() if flag is not None and as_word(name)}

    @property
    def created_at(self) -> datetime | None:
        """When the person was verified."""
        return _time(field(self.document, *_CREATED_FIELDS))

    @property
    def updated_at(self) -> datetime | None:
        """When the record last changed; a manual review changes it."""
        return _time(field(self.document, "updatedAt", "updated", "updated_on"))

    def is_older_than(self, moment: float) -> bool:
        """Return whether this record was surely made before ``moment``, a Unix time.

        A time without a zone may be that of any zone, and a day may be any hour of it.
        """
        created = self.created_at
        if created is None:
            return False
        sent = field(self.document, *_CREATED_FIELDS)
        slack = 0.0 if _names_zone(sent) else _MAX_ZONE_ERROR_SECONDS
        return created.timestamp() + slack < moment

    def summary(self) -> Summary:
        """Return what may go to XCom: ids, decision, codes, flags and times; nothing about the person."""
        decision, created_at, updated_at = self.decision, self.created_at, self.updated_at
        return {
            "request_id": self.request_id,
            "record_identifier": self.record_identifier,
            "link": self.link,
            "decision": decision.value if decision else None,
            "error_codes": self.code_summaries,
            "verification_summary": self.flags,
            "created_at": created_at.isoformat() if created_at else None,
            "updated_at": updated_at.isoformat() if updated_at else None,
        }

    def matches(self, name: str, value: str) -> bool | None:
        """Return whether this record is of what was asked for; ``None`` if it does not say.

        How FACEKI takes a filter that it does not know is undocumented: it may answer with records of others.

        :param name: ``request_id``, ``record_identifier``, ``link`` or ``face_id``.
        :param value: What was asked for.
        """
        sent = self._sent(name)
        if not isinstance(sent, str | int) or isinstance(sent, bool) or (is_missing(sent) and sent != value):
            return None
        text = str(sent)
        if name == "record_identifier":
            return text.strip() == value.strip()
        if name == "link":
            text, value = as_link_id(text) or text, as_link_id(value) or value
        # FACEKI's ids are UUIDs, which mean the same in either case; an id of the caller's need not.
        return text.strip().lower() == value.strip().lower()

    def _sent(self, name: str) -> Json:
        spellings = {
            "request_id": ("requestId",),
            "link": ("link", "linkId"),
            "record_identifier": ("record_identifier", "applicationId"),
            "face_id": ("face_id",),
        }[name]
        return field(self.document, *spellings)

    def _codes(self) -> Iterator[CodeSummary]:
        items = field(self.document, "errorCodes", "error_code")
        for item in items if isinstance(items, list) else (items,):
            sent = field(item, *_CODE_FIELDS) if isinstance(item, dict) else item
            name = as_code_name(field(item, "name") if isinstance(item, dict) and sent is None else sent)
            code = as_code(sent)
            if code is None and name is not None:
                code = _CODE_BY_NAME.get(name)
            if code is not None:
                yield {"code": code, "name": code_name(code)}
            elif name is not None:
                yield {"code": None, "name": name}

    def __repr__(self) -> str:
        return f"<VerificationRecord {self.request_id} {self.decision}>"


def latest(records: Iterable[VerificationRecord]) -> VerificationRecord | None:
    """Return the newest record by creation time; a person may try a link more than once.

    Records without a readable time count as older than those with one; among equals the last wins.
    """
    newest: VerificationRecord | None = None
    for record in records:
        if newest is None or _age(record) >= _age(newest):
            newest = record
    return newest


def final_record(
    records: Iterable[VerificationRecord], *, wait_for_review: bool
) -> VerificationRecord | None:
    """Return the newest record if its decision ends the wait, else ``None``.

    :param records: What FACEKI has for what is waited for; nothing yet is an empty iterable.
    :param wait_for_review: Whether REVIEW, which a person will still decide, does not end it.
    """
    newest = latest(records)
    if newest is None or newest.decision is None:
        return None
    return newest if newest.decision.is_final or not wait_for_review else None


def _age(record: VerificationRecord) -> float:
    return record.created_at.timestamp() if record.created_at else float("-inf")


def _decision_text(value: Json) -> str | None:
    """Return a decision that may be wrapped in a list or an object of its own."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = field(value, "decision", "status", "value", "name")
    return value if isinstance(value, str) and not is_missing(value) else None


def _known_decision(value: Json) -> Decision | None:
    word = value.strip().upper() if isinstance(value, str) else ""
    return Decision.__members__.get(word)


def _time(value: Json) -> datetime | None:
    """Read a time: ISO 8601, in UTC where it names no zone; Unix seconds or milliseconds; MongoDB's ``$date``."""
    if isinstance(value, dict):
        value = value.get("$date")
    try:
        is_text = isinstance(value, str) and not value.isdecimal()
        moment = datetime.fromisoformat(str(value)) if is_text else _epoch(value)
        moment = moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
        if moment is not None:
            moment.timestamp()
            moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment


def _names_zone(value: Json) -> bool:
    if isinstance(value, dict):
        value = value.get("$date")
    if not isinstance(value, str) or value.isdecimal():
        return True
    return datetime.fromisoformat(value).tzinfo is not None


def _epoch(value: Json) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    seconds = float(value)
    if _MIN_EPOCH_SECONDS * 1000 <= seconds < _MAX_EPOCH_SECONDS * 1000:
        seconds /= 1000
    return (
        datetime.fromtimestamp(seconds, UTC) if _MIN_EPOCH_SECONDS <= seconds < _MAX_EPOCH_SECONDS else None
    )

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Classes for the decision of a verification, for its record, and for a summary of the record.

Field names: https://docs.faceki.com/data-fields/verification-data and
https://docs.faceki.com/api-integration/verification-apis/fetch-records . Other spellings of the names are accepted too
(``request_id``, ``RequestID``), because the documentation has not been compared with the live service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypedDict

from airflow_provider_faceki.api.codes import CODE_BY_NAME, code_name
from airflow_provider_faceki.api.protocol.fields import as_flag, describe, field, has_field, plain
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

#: Decision that replaces FACEKI's text if the text is not a single short word, because such a text possibly contains
#: personal data.
OTHER = "OTHER"

#: Fields other than ``decision`` that possibly contain the decision. In these fields only a documented decision is
#: accepted.
_OTHER_DECISION_FIELDS = (
    *("status", "verification_status", "kyc_status"),
    *("verdict", "outcome", "final_decision", "result"),
)
# A JSON object with one of these fields, or with two of the fields in `_WEAK_RECORD_FIELDS`, is a verification record.
_RECORD_FIELDS = frozenset(
    {
        *("requestid", "recordidentifier", "decision", "documentdata", "documentdataconfidence"),
        *("selfiedata", "verificationsummary", "errorcodes", "faceid"),
    }
)
_WEAK_RECORD_FIELDS = frozenset(
    {"link", "createdat", "updatedat", "images", "aml", "warnings", "notes", "devicedetails"}
)
_CREATED_FIELDS = ("createdAt", "created", "created_on", "creationDate")
_CODE_FIELDS = ("code", "errorCode", "error_code", "responseCode", "statusCode", "id", "value")

# A number from 1e9 to 1e10 is read as a Unix time in seconds (years 2001 to 2286). A number from 1e12 to 1e13 is read
# as a Unix time in milliseconds.
_MIN_EPOCH_SECONDS, _MAX_EPOCH_SECONDS = 1e9, 1e10
# If a creation time has no time zone, `is_older_than` adds this number of seconds to it, so that no record seems older
# than it is. The sum has three parts:
#
# - 12 hours, because a time without a zone is read as UTC, and some zones are 12 hours behind UTC.
# - 24 hours, because a date without a time is read as midnight. A date never has a zone.
# - two hours as a reserve.
_MAX_ZONE_ERROR_SECONDS = 38 * 3600.0


class Decision(StrEnum):
    """FACEKI's decision about a verification.

    FACEKI documents the three decisions below:
    https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure . An undocumented single word becomes a
    decision with this word as its value. Any other text becomes a decision with the value ``OTHER``, because the text
    is possibly a sentence about the person.
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
        # An undocumented word becomes a new object at each call. It does not become a member of the enum, because the
        # enum could then grow without limit.
        unknown = str.__new__(cls, word)
        unknown._name_ = word
        unknown._value_ = word
        return unknown

    @property
    def is_final(self) -> bool:
        """Whether the decision is final. Every decision except REVIEW is final.

        Undocumented decisions are final too. If they were not final, a task that waits for a final decision could wait
        forever. A DAG can forward an undocumented decision to a human reviewer.
        """
        return self is not Decision.REVIEW


class CodeSummary(TypedDict):
    """One of FACEKI's codes and its published name. If only one of the two is known, the other is ``None``."""

    code: int | None
    name: str | None


class Summary(TypedDict):
    """Summary of a record. It is safe in XCom, because it contains no person's name, document, image or free text."""

    request_id: str | None
    record_identifier: str | None
    link: str | None
    decision: str | None
    error_codes: list[CodeSummary]
    verification_summary: dict[str, bool]
    created_at: str | None
    updated_at: str | None


def is_record(document: Mapping[str, Json]) -> bool:
    """Return whether a JSON object is a verification record.

    An object is a record if at least one of these conditions is true:

    * The object has a field that only records have, such as ``requestId``.
    * The object has at least two fields that are usual in records, such as ``link`` and ``images``.
    * The field ``status`` of the object contains a documented decision.
    """
    if document.get("requestId") or document.get("decision"):
        return True
    names = {plain(key) for key, value in document.items() if value not in (None, "", [], {})}
    if names & _RECORD_FIELDS or len(names & _WEAK_RECORD_FIELDS) > 1:
        return True
    return _known_decision(document.get("status")) is not None


@dataclass(frozen=True, slots=True, repr=False)
class VerificationRecord:
    """The complete record of one verification of one person.

    :attr:`document` contains free text and personal data. The other attributes are only ids, the decision, codes, flags
    and times. One of these ids, :attr:`record_identifier`, is chosen by the caller, so it is possibly personal data.

    :param document: The record as FACEKI sent it, including unknown fields. FACEKI sends ages and dates as text, which
        is often empty. Country codes have two letters in fields whose name ends with ``_iso``, and three letters in
        fields whose name ends with ``_iso2``.
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
        """Return a record that has only the given fields. Use this method if the complete record is not available.

        :param record_identifier: The caller's own id.
        :param request_id: FACEKI's id of the verification.
        :param decision: The decision, as FACEKI spells it.
        :param codes: The codes that explain the decision.
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

    def describe(self) -> str:
        """Return the names of the record's keys, without values, for a log line."""
        return describe(dict(self.document))

    @property
    def request_id(self) -> str | None:
        """FACEKI's own id of this verification (a UUID). ``None`` if the field is not a valid id."""
        return as_faceki_id(field(self.document, "requestId"))

    @property
    def record_identifier(self) -> str | None:
        """The caller's own id of the verification. ``None`` if the field is not a valid identifier.

        An example of an invalid identifier is ``undefined``. One of FACEKI's SDKs sends this text if the app that uses
        the SDK sets no identifier.
        """
        return as_identifier(self._sent("record_identifier"))

    @property
    def link(self) -> str | None:
        """The id of the link that the person used. Do not log it, because anyone with the id can use the link."""
        return as_link_id(self._sent("link"))

    @property
    def face_id(self) -> str | None:
        """FACEKI's id of the person. All verifications of one person have the same id."""
        return as_faceki_id(field(self.document, "face_id"))

    @property
    def decision(self) -> Decision | None:
        """The decision, or ``None`` if the record has no decision yet.

        The decision is read from the first of these three places that contains a decision:

        1. The field ``decision`` of the record.
        2. The field ``status`` or a similar field of the record. Only a documented decision is accepted.
        3. The field ``decision`` of the objects inside the record. Only a documented decision is accepted. This place
           is not read if the record has a field ``decision``, even an empty one. If the objects have different
           decisions, the result is ``None``.
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
        """FACEKI's codes that explain the decision, as numbers. A published name is converted into its number."""
        return tuple(code["code"] for code in self.code_summaries if code["code"] is not None)

    @property
    def code_summaries(self) -> list[CodeSummary]:
        """FACEKI's codes that explain the decision, each with its number and its published name.

        If only one of the two is known, the other is ``None``.
        """
        codes: list[CodeSummary] = []
        items = field(self.document, "errorCodes", "error_code")
        for item in items if isinstance(items, list) else (items,):
            sent = field(item, *_CODE_FIELDS) if isinstance(item, dict) else item
            name = as_code_name(field(item, "name") if isinstance(item, dict) and sent is None else sent)
            code = as_code(sent)
            if code is None and name is not None:
                code = CODE_BY_NAME.get(name)
            if code is not None:
                codes.append({"code": code, "name": code_name(code)})
            elif name is not None:
                codes.append({"code": None, "name": name})
        return codes

    @property
    def flags(self) -> dict[str, bool]:
        """Results of the single checks of the verification, by the name of the check. True means passed.

        FACEKI sends them in the field ``verification_summary``.
        """
        sent = field(self.document, "verification_summary")
        flags = {name: as_flag(value) for name, value in sent.items()} if isinstance(sent, dict) else {}
        return {name: flag for name, flag in flags.items() if flag is not None and as_word(name)}

    @property
    def created_at(self) -> datetime | None:
        """Time at which FACEKI created the record, or ``None`` if the record contains no readable time."""
        return _time(field(self.document, *_CREATED_FIELDS))

    @property
    def updated_at(self) -> datetime | None:
        """Time of the last change of the record, such as a manual review. ``None`` if there is no readable time."""
        return _time(field(self.document, "updatedAt", "updated", "updated_on"))

    def is_older_than(self, moment: float) -> bool:
        """Return True if FACEKI certainly created this record before ``moment``, a Unix time.

        If the record has no creation time, the result is False. If the creation time has no time zone, its real time is
        unknown, so 38 hours are added to it before the comparison: 12 hours for the unknown zone, 24 hours because the
        time of day is possibly missing too, and two hours as a reserve.
        """
        created = self.created_at
        if created is None:
            return False
        sent = field(self.document, *_CREATED_FIELDS)
        slack = 0.0 if _names_zone(sent) else _MAX_ZONE_ERROR_SECONDS
        return created.timestamp() + slack < moment

    def summary(self) -> Summary:
        """Return the summary of this record. The summary is safe in XCom; see :class:`Summary`."""
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
        """Return whether this record matches the filter of a request for records.

        If FACEKI does not know a filter, it possibly ignores the filter and returns records of other people. Therefore
        the caller must check each returned record with this method.

        :param name: Filter: ``request_id``, ``record_identifier``, ``link`` or ``face_id``.
        :param value: Value of the filter.
        :returns: ``True`` or ``False``, or ``None`` if the record contains no readable id that can be compared with the
            value.
        """
        sent = self._sent(name)
        if not isinstance(sent, str | int) or isinstance(sent, bool) or (is_missing(sent) and sent != value):
            return None
        text = str(sent)
        if name == "record_identifier":
            return text.strip() == value.strip()
        if name == "link":
            text, value = as_link_id(text) or text, as_link_id(value) or value
        # FACEKI's ids are UUIDs. A UUID in upper case is equal to the same UUID in lower case, so case is ignored here.
        # The caller's own identifier is case-sensitive, so it is compared exactly, above.
        return text.strip().lower() == value.strip().lower()

    def _sent(self, name: str) -> Json:
        spellings = {
            "request_id": ("requestId",),
            "link": ("link", "linkId"),
            "record_identifier": ("record_identifier", "applicationId"),
            "face_id": ("face_id",),
        }[name]
        return field(self.document, *spellings)

    def __repr__(self) -> str:
        return f"<VerificationRecord {self.request_id} {self.decision}>"


def latest(records: Iterable[VerificationRecord]) -> VerificationRecord | None:
    """Return the record with the newest creation time, or ``None`` if there are no records.

    One link can have several records, because a person can use a link more than once. A record without a readable time
    counts as older than a record with a time. If several records have the newest time, the last of them in ``records``
    is returned.
    """
    # Of several records with the newest time, the last one is wanted. `max` returns the first one, so the order is
    # reversed.
    return max(reversed(list(records)), key=_created, default=None)


def final_record(
    records: Iterable[VerificationRecord], *, wait_for_review: bool
) -> VerificationRecord | None:
    """Return the newest record if its decision is final. Otherwise return ``None``, so that the caller waits longer.

    :param records: FACEKI's records of the verification. The iterable is empty if no record exists yet.
    :param wait_for_review: Whether the caller waits until a human reviewer has replaced the decision REVIEW. With
        ``False``, the decision REVIEW is treated as final.
    """
    newest = latest(records)
    if newest is None or newest.decision is None:
        return None
    return newest if newest.decision.is_final or not wait_for_review else None


def _created(record: VerificationRecord) -> float:
    return record.created_at.timestamp() if record.created_at else float("-inf")


def _decision_text(value: Json) -> str | None:
    """Return the text of a decision, or ``None``. The text is possibly inside an object or a list of one item."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = field(value, "decision", "status", "value", "name")
    return value if isinstance(value, str) and not is_missing(value) else None


def _known_decision(value: Json) -> Decision | None:
    word = value.strip().upper() if isinstance(value, str) else ""
    return Decision.__members__.get(word)


def _time(value: Json) -> datetime | None:
    """Return the time that ``value`` represents, or ``None``.

    Accepted formats are ISO 8601 (UTC if there is no zone), Unix time in seconds or milliseconds, and MongoDB's
    ``$date``.
    """
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

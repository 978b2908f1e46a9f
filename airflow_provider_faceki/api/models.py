# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a FACEKI verification is: its decision, its record, and the part of it without personal data.

Field names: https://docs.faceki.com/data-fields/verification-data and
https://docs.faceki.com/api-integration/verification-apis/fetch-records .
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from airflow_provider_faceki.api.codes import code_name
from airflow_provider_faceki.api.values import Json, as_code

# Identifiers are at most this long in a summary: an XCom stays small whatever the answer holds.
_LONGEST_IDENTIFIER = 512

#: What a decision is called that is no short word.
OTHER = "OTHER"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class Decision(StrEnum):
    """FACEKI's verdict; a word that FACEKI has not documented becomes a member of its own, and what is no word
    ``OTHER``: it may be a sentence about the person.

    The three documented words are those of the webhook page:
    https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure .
    """

    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    REVIEW = "REVIEW"

    @classmethod
    def _missing_(cls, value: object) -> Decision | None:
        if not isinstance(value, str) or not value.strip():
            return None
        word = value.strip()
        known = cls.__members__.get(word.upper())
        if known is not None:
            return known
        if not _WORD.fullmatch(word):
            word = OTHER
        # Made anew each time, never registered: what a stranger sends must not grow the enum.
        unknown = str.__new__(cls, word)
        unknown._name_ = word
        unknown._value_ = word
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether FACEKI documents this word."""
        return self.value in type(self).__members__

    @property
    def is_final(self) -> bool:
        """Whether nobody is expected to change it: all but REVIEW.

        An undocumented word counts as final: a pipeline that sees it at once can route it to a person, one
        that waits for a documented word might wait for ever.
        """
        return self is not Decision.REVIEW


class CodeSummary(TypedDict):
    """An error code with its published name, or ``None`` for a code that no source names."""

    code: int
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


@dataclass(frozen=True, slots=True, repr=False)
class VerificationRecord:
    """One verification of one person, whole.

    Personal data is in :attr:`document` only; ``repr`` shows the request id and the decision.

    :param document: The record as FACEKI sent it, every unknown field included. FACEKI sends ages and dates
        as strings, often empty, and ``*_iso`` as two letters, ``*_iso2`` as three.
    """

    document: Mapping[str, Json]

    @classmethod
    def told(
        cls,
        *,
        record_identifier: str | None,
        request_id: str | None,
        decision: str | None,
        codes: Iterable[int],
    ) -> VerificationRecord:
        """Return a record that holds no more than is told here: FACEKI has sent none, or it was not kept.

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
        """FACEKI's own id of this verification (a UUID)."""
        return _text(self.document.get("requestId"))

    @property
    def record_identifier(self) -> str | None:
        """The caller's id, if one was given. One SDK sends the word ``undefined`` for none; so read here."""
        found = _text(self.document.get("record_identifier"))
        return None if found == "undefined" else found

    @property
    def link(self) -> str | None:
        """The id of the link that the person used. Whoever knows it can act on the link: do not log it."""
        return _text(self.document.get("link"))

    @property
    def face_id(self) -> str | None:
        """FACEKI's id of the person, the same over all verifications of that person."""
        return _text(self.document.get("face_id"))

    @property
    def decision(self) -> Decision | None:
        """The verdict; ``None`` while there is none."""
        word = _text(self.document.get("decision"))
        return Decision(word) if word and word.strip() else None

    @property
    def error_codes(self) -> tuple[int, ...]:
        """The codes that explain the decision. The form of the items is undocumented: numbers are found in
        numbers, in numeric strings and in objects with a ``code``; anything else stays in :attr:`document`.
        """
        items = self.document.get("errorCodes")
        found = [
            as_code(item.get("code") if isinstance(item, dict) else item)
            for item in (items if isinstance(items, list) else ())
        ]
        return tuple(code for code in found if code is not None)

    @property
    def flags(self) -> dict[str, bool]:
        """``verification_summary``: which checks passed."""
        flags = self.document.get("verification_summary")
        items = flags.items() if isinstance(flags, dict) else ()
        return {name: value for name, value in items if isinstance(value, bool)}

    @property
    def created_at(self) -> datetime | None:
        """When the person was verified."""
        return _time(self.document.get("createdAt"))

    @property
    def updated_at(self) -> datetime | None:
        """When the record last changed; a manual review changes it."""
        return _time(self.document.get("updatedAt"))

    def summary(self) -> Summary:
        """Return what may go to XCom: ids, decision, codes, flags and times; nothing about the person."""
        return {
            "request_id": self.request_id,
            "record_identifier": self.record_identifier,
            "link": self.link,
            "decision": self.decision.value if self.decision else None,
            "error_codes": [{"code": code, "name": code_name(code)} for code in self.error_codes],
            "verification_summary": self.flags,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "updated_at": self.updated_at.isoformat() if self.updated_at else None,
        }

    def __repr__(self) -> str:
        return f"<VerificationRecord {self.request_id} {self.decision}>"


def is_of(record: VerificationRecord, field: str, value: str) -> bool | None:
    """Whether a record is of what was asked for; ``None`` if it does not say. How FACEKI takes a filter that it does
    not know is undocumented: it may well answer with others.

    :param field: ``request_id``, ``record_identifier``, ``link`` or ``face_id``.
    :param value: What was asked for.
    """
    told = {
        "request_id": record.request_id,
        "record_identifier": record.record_identifier,
        "link": record.link,
        "face_id": record.face_id,
    }[field]
    if told is None:
        return None
    # Ids of FACEKI's are UUIDs, which mean the same in either case; an id of the caller's need not.
    same_case = field == "record_identifier"
    one, other = (text.strip() if same_case else text.strip().lower() for text in (told, value))
    return one == other


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


def _text(value: Json) -> str | None:
    return value[:_LONGEST_IDENTIFIER] if isinstance(value, str) and value else None


def _time(value: Json) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else None

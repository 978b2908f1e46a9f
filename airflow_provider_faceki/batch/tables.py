# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Records as tables: which columns there are, of which type, and which of them are about the person.

FACEKI sends ages, days and years as texts, often empty; here they are typed, and what cannot be read is ``None``.
Fields that no column names are kept, as JSON, in the column ``other``. Field names:
https://docs.faceki.com/data-fields/verification-data .
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

from airflow_provider_faceki import api
from airflow_provider_faceki.api.errors import ConfigurationError, InputError

POLICIES = ("keep", "drop", "hash")
#: All that a row of another table needs to find its verification.
KEY = "request_id"


class Column(NamedTuple):
    """One column.

    :param name: Its name.
    :param type: ``text``, ``int``, ``float``, ``bool``, ``date``, ``time`` or ``json``.
    :param source: FACEKI's field, with dots into objects.
    :param personal: Whether it is about the person, and so dropped unless asked for.
    """

    name: str
    type: str
    source: str
    personal: bool = True


def _same(names: str, kind: str = "text") -> tuple[Column, ...]:
    return tuple(Column(name, kind, name) for name in names.split())


_FLAGS = (
    "face_verified selfie_liveness_verified document_verified verification_rules_passed "
    "document_liveness_verified image_quality"
)
_POSITION = Column("position", "int", "", personal=False)
_OTHER = Column("other", "json", "")

TABLES: dict[str, tuple[Column, ...]] = {
    "verifications": (
        Column(KEY, "text", "requestId", personal=False),
        Column("record_identifier", "text", "record_identifier", personal=False),
        Column("face_id", "text", "face_id", personal=False),
        Column("decision", "text", "decision", personal=False),
        Column("error_codes", "json", "errorCodes", personal=False),
        *(Column(name, "bool", f"verification_summary.{name}", personal=False) for name in _FLAGS.split()),
        Column("liveness_pass", "bool", "selfie_data.liveness_pass", personal=False),
        Column("created_at", "time", "createdAt", personal=False),
        Column("updated_at", "time", "updatedAt", personal=False),
        Column("link", "text", "link"),
        Column("updated_by", "text", "updateBy"),
        Column("user_agent", "text", "deviceDetails.useragent"),
        _OTHER,
    ),
    "documents": (
        Column(KEY, "text", "", personal=False),
        _POSITION,
        Column("passed", "bool", "passed", personal=False),
        Column("face_similarity", "float", "document_face_match.similarity", personal=False),
        Column("face_confidence", "float", "document_face_match.confidence", personal=False),
        *_same(
            "document_type document_type_full reference full_name first_name middle_name last_name local_name"
        ),
        *_same("nationality nationality_iso nationality_iso2 issuer issuer_iso issuer_iso2 gender"),
        Column("age", "int", "age"),
        Column("date_of_birth", "date", "date_of_birth"),
        Column("expiry", "date", "expiry"),
        Column("issued", "date", "issued"),
        *_same("document_number documentAdditionalNumber dob mrz"),
        _OTHER,
    ),
    "aml_hits": (
        Column(KEY, "text", "", personal=False),
        _POSITION,
        *_same("list_name type name"),
        Column("fuzz", "float", "fuzz"),
        _OTHER,
    ),
    "images": (
        Column(KEY, "text", "", personal=False),
        _POSITION,
        Column("document_name", "text", "documentName"),
        Column("side", "text", "side"),
        Column("key", "text", "key"),
    ),
}

#: Where in a record the rows of each further table stand.
_ITEMS = {"documents": "document_data", "aml_hits": "aml", "images": "images"}
#: Top-level fields that a table of their own or a column holds, and so are not ``other``.
_ELSEWHERE = {"verification_summary", "selfie_data", "deviceDetails", *_ITEMS.values()}


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of each column.

    :param choices: ``keep``, ``drop`` or ``hash`` by ``table.column`` or ``table.*``; the closer name wins.
        Default for the rest: ids, decisions, codes, flags and times are kept, all about the person is dropped.
    :param hash_key: Key for ``hash``, so that the same value gives the same hash in every run.
    :raises InputError: a name or a word in ``choices`` is unknown.
    :raises ConfigurationError: something is to be hashed, and there is no key.
    """

    choices: Mapping[str, str]
    hash_key: str | None = None

    def __post_init__(self) -> None:
        names = {f"{table}.{column.name}" for table, columns in TABLES.items() for column in columns}
        names |= {f"{table}.*" for table in TABLES}
        for name, choice in self.choices.items():
            if name not in names:
                raise InputError(f"personal_data: no column {name!r}; write table.column or table.*")
            if choice not in POLICIES:
                raise InputError(
                    f"personal_data: {name} must be one of {', '.join(POLICIES)}, not {choice!r}"
                )
        if "hash" in self.choices.values() and not self.hash_key:
            raise ConfigurationError(
                "personal_data asks for hashes: set pii_hash_key in the Connection's extra"
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
        """Return a row with what may be written of ``values``."""
        return {
            column.name: self._hashed(values.get(column.name))
            if self.of(table, column) == "hash"
            else values.get(column.name)
            for column in TABLES[table]
            if self.of(table, column) != "drop"
        }

    def _hashed(self, value: object) -> str | None:
        if value is None:
            return None
        # So that spelling alone (case, spaces, composed letters) makes no other person.
        text = " ".join(unicodedata.normalize("NFKC", str(value)).casefold().split())
        return hmac.new((self.hash_key or "").encode(), text.encode(), hashlib.sha256).hexdigest()


def table_rows(record: api.VerificationRecord) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the rows that a record makes, each with the name of its table; no policy is applied yet."""
    document = record.document
    first = {column.name: _value(document, column) for column in TABLES["verifications"]}
    codes = [{"code": code["code"], "name": code["name"]} for code in record.summary()["error_codes"]]
    first["error_codes"] = json.dumps(codes)
    first["other"] = _others(document, TABLES["verifications"], _ELSEWHERE)
    yield "verifications", first
    for table, field in _ITEMS.items():
        items = document.get(field)
        for position, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                values = {column.name: _value(item, column) for column in TABLES[table]}
                values |= {KEY: record.request_id, "position": position}
                values["other"] = _others(item, TABLES[table], {"document_face_match"})
                yield table, values


def _others(document: Mapping[str, object], columns: Sequence[Column], elsewhere: set[str]) -> str | None:
    known = {column.source.partition(".")[0] for column in columns} | elsewhere
    rest = {name: value for name, value in document.items() if name not in known}
    return json.dumps(rest, sort_keys=True) if rest else None


def _value(document: Mapping[str, object], column: Column) -> object:
    value: object = document
    for field in column.source.split("."):
        value = value.get(field) if isinstance(value, Mapping) else None
    return _READERS[column.type](value)


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value) if value != "" else None


def _float(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None


def _int(value: object) -> int | None:
    number = _float(value)
    # A column of 64 bits takes no more; an age or a position is far below.
    return int(number) if number is not None and abs(number) < 2**53 and number == int(number) else None


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def _time(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _json(value: object) -> str | None:
    return json.dumps(value, sort_keys=True) if value not in (None, "", [], {}) else None


_READERS: dict[str, Callable[[object], object]] = {
    "text": _text,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": _date,
    "time": _time,
    "json": _json,
}

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A record as rows of tables: which columns there are, of which type, and which of them are about the person.

FACEKI sends ages, days and years as texts, often empty; here they are typed. What no column holds, be it a field that
nobody knew or a value that is not of its column's type, is kept as JSON in the column ``other``. Field names:
https://docs.faceki.com/data-fields/verification-data .
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

from airflow_provider_faceki.api.models import OTHER, VerificationRecord

#: All that a row of another table needs to find its verification.
KEY = "request_id"


class Column(NamedTuple):
    """One column.

    :param name: Its name.
    :param type: ``text``, ``int``, ``float``, ``bool``, ``date``, ``time`` (UTC) or ``json``.
    :param source: FACEKI's field, with dots into objects; empty for what is worked out.
    :param personal: Whether it is about the person, and so dropped unless asked for.
    """

    name: str
    type: str
    source: str
    personal: bool = True


def _plain(kind: str, *names: str) -> tuple[Column, ...]:
    """Return columns that keep FACEKI's names, in the way that columns are written."""
    return tuple(Column(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower(), kind, name) for name in names)


_FLAGS = (
    "face_verified",
    "selfie_liveness_verified",
    "document_verified",
    "verification_rules_passed",
    "document_liveness_verified",
    "image_quality",
)
_REQUEST = Column(KEY, "text", "", personal=False)
_POSITION = Column("position", "int", "", personal=False)
_OTHER = Column("other", "json", "")

TABLES: dict[str, tuple[Column, ...]] = {
    "verifications": (
        Column(KEY, "text", "requestId", personal=False),
        Column("record_identifier", "text", "record_identifier", personal=False),
        Column("face_id", "text", "face_id", personal=False),
        Column("decision", "text", "decision", personal=False),
        Column("error_codes", "json", "errorCodes", personal=False),
        *(Column(name, "bool", f"verification_summary.{name}", personal=False) for name in _FLAGS),
        Column("liveness_pass", "bool", "selfie_data.liveness_pass", personal=False),
        Column("created_at", "time", "createdAt", personal=False),
        Column("updated_at", "time", "updatedAt", personal=False),
        Column("link", "text", "link"),
        Column("updated_by", "text", "updateBy"),
        Column("user_agent", "text", "deviceDetails.useragent"),
        _OTHER,
    ),
    "documents": (
        _REQUEST,
        _POSITION,
        Column("passed", "bool", "passed", personal=False),
        Column("face_similarity", "float", "document_face_match.similarity"),
        Column("face_confidence", "float", "document_face_match.confidence"),
        *_plain("text", "document_type", "document_type_full", "reference"),
        *_plain("text", "full_name", "first_name", "middle_name", "last_name", "local_name"),
        *_plain("text", "nationality", "nationality_iso", "nationality_iso2"),
        *_plain("text", "issuer", "issuer_iso", "issuer_iso2", "gender"),
        *_plain("int", "age"),
        *_plain("date", "date_of_birth", "expiry", "issued"),
        *_plain("text", "document_number", "documentAdditionalNumber", "dob", "mrz"),
        _OTHER,
    ),
    "aml_hits": (
        _REQUEST,
        _POSITION,
        *_plain("text", "list_name", "type", "name"),
        *_plain("float", "fuzz"),
        _OTHER,
    ),
    "images": (_REQUEST, _POSITION, *_plain("text", "documentName", "side", "key"), _OTHER),
}

#: Where in a record the rows of each further table stand.
_ITEMS = {"documents": "document_data", "aml_hits": "aml", "images": "images"}


def table_rows(record: VerificationRecord) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the rows that a record makes, each with the name of its table; no policy is applied yet."""
    document = record.document
    first = _values(document, "verifications")
    codes = record.summary()["error_codes"]
    first |= {
        "record_identifier": record.record_identifier,
        "decision": str(record.decision) if record.decision else None,
        "error_codes": json.dumps([{"code": code["code"], "name": code["name"]} for code in codes]),
    }
    rest = _rest(document, "verifications", first)
    if record.decision == OTHER:
        rest["decision"] = document.get("decision")
    raw_codes = document.get("errorCodes")
    if isinstance(raw_codes, list) and len(raw_codes) != len(codes):
        rest["errorCodes"] = raw_codes
    rows: list[tuple[str, dict[str, object]]] = []
    for table, field in _ITEMS.items():
        items = rest.pop(field, None)
        unread = [items] if items and not isinstance(items, list) else []
        for position, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                rows.append((table, _item_row(table, item, record.request_id, position)))
            else:
                unread.append(item)
        if unread:
            rest[field] = unread
    first["other"] = _json(rest)
    yield "verifications", first
    yield from rows


def _item_row(
    table: str, item: Mapping[str, object], request_id: str | None, position: int
) -> dict[str, object]:
    values = _values(item, table)
    values |= {KEY: request_id, "position": position, "other": _json(_rest(item, table, values))}
    return values


def _values(document: Mapping[str, object], table: str) -> dict[str, object]:
    return {
        column.name: _READERS[column.type](_raw(document, column.source)) if column.source else None
        for column in TABLES[table]
    }


def _raw(document: Mapping[str, object], source: str) -> object:
    value: object = document
    for field in source.split("."):
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def _rest(document: Mapping[str, object], table: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return what of ``document`` no column holds: neither fields without a column nor values of another type."""
    rest = dict(document)
    for column in TABLES[table]:
        # An empty text is how FACEKI says that there is nothing.
        if column.source and (values[column.name] is not None or _raw(document, column.source) in (None, "")):
            outer, _, inner = column.source.partition(".")
            held = rest.get(outer)
            if not inner:
                rest.pop(outer, None)
            elif isinstance(held, Mapping):
                rest[outer] = {name: value for name, value in held.items() if name != inner}
    return {name: value for name, value in rest.items() if value not in (None, "", {}, [])}


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    # JSON can tell half of a character, which no file can.
    return str(value).encode(errors="replace").decode()


def _float(value: object) -> float | None:
    try:
        number = (
            float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        )
    except (ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _int(value: object) -> int | None:
    number = _float(value)
    # A column of 64 bits takes no more; an age or a position is far below.
    return int(number) if number is not None and abs(number) < 2**53 and number == int(number) else None


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else None
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

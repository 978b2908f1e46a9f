# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Conversion of a verification record into rows of database tables with typed columns.

Each column is marked as personal data or not. FACEKI sends ages, days and years as text, which is often empty. This
module converts the text to numbers and dates. If a field has no column, or its value has another type than its column,
the field is stored as JSON in the column ``other``.

Source of the field names: https://docs.faceki.com/data-fields/verification-data .
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

from airflow_provider_faceki.api.models import OTHER, CodeSummary, VerificationRecord
from airflow_provider_faceki.api.protocol.fields import field, plain
from airflow_provider_faceki.api.values import Json, as_number

#: Column that identifies a row of the table ``verifications``. Every other table has this column too, as a reference to
#: a row of ``verifications``.
KEY = "request_id"


class Column(NamedTuple):
    """One column of a table.

    :param name: Name of the column.
    :param type: ``text``, ``int``, ``float``, ``bool``, ``date``, ``time`` (UTC) or ``json``.
    :param source: Name of FACEKI's field. If the field is inside an object, the name consists of the object's name, a
        dot and the field's name. For a computed column, the name is empty.
    :param personal: Whether the column contains personal data. By default, such columns are not exported.
    """

    name: str
    type: str
    source: str
    personal: bool = True


def _plain(kind: str, *names: str) -> tuple[Column, ...]:
    """Return one column of type ``kind`` for each of ``names``, which are names of FACEKI's fields.

    The name of the column is the name of the field in snake case.
    """
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

#: The rows of each table except ``verifications`` come from one field of the record, which contains a list. This
#: mapping contains the name of this field for each table.
_ITEMS = {"documents": "document_data", "aml_hits": "aml", "images": "images"}


# Where FACEKI's record contains the value of each column. For each table, the list has one item for each column. An
# item has three parts:
#
# - the column;
# - the outer name: the field of the record that contains the value, or an object with the value;
# - the inner name: the field of this object that contains the value. It is empty if there is no such object.
#
# For example, the source `selfie_data.liveness_pass` has the outer name `selfiedata` and the inner name
# `liveness_pass`. Outer names are spelled as the function `plain` returns them, because they are compared with the
# plain names of the record's fields.
_SOURCES = {
    table: [
        (column, plain(column.source.partition(".")[0]), column.source.partition(".")[2])
        for column in columns
    ]
    for table, columns in TABLES.items()
}


def table_rows(record: VerificationRecord) -> Iterator[tuple[str, dict[str, object]]]:
    """Convert a record into table rows, and yield each row with the name of its table.

    A row contains all columns of the table. Personal data is neither removed nor hashed.
    """
    codes = record.code_summaries
    first = _values(record.document, "verifications") | _typed(record, codes)
    other = _unmapped(record.document, "verifications", first)
    sent = field(record.document, "errorCodes")
    if isinstance(sent, list) and len(sent) != len(codes):
        other["errorCodes"] = sent
    if record.decision == OTHER:
        other["decision"] = field(record.document, "decision")
    rows: list[tuple[str, dict[str, object]]] = []
    for table, name in _ITEMS.items():
        key = next((key for key in other if plain(key) == plain(name)), name)
        items = other.pop(key, None)
        unread: list[Json] = [items] if items and not isinstance(items, list) else []
        for position, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict):
                rows.append((table, _item_row(table, item, record.request_id, position)))
            else:
                unread.append(item)
        if unread:
            other[name] = unread
    first["other"] = _json(other)
    yield "verifications", first
    yield from rows


def _typed(record: VerificationRecord, codes: Sequence[CodeSummary]) -> dict[str, object]:
    """Return a mapping from column names of the table ``verifications`` to values.

    The mapping contains only columns whose values are checked attributes of ``record``, such as ``decision``. The other
    columns of the table are not in the mapping.
    """
    flags = record.flags
    decision = record.decision
    return {
        KEY: record.request_id,
        "record_identifier": record.record_identifier,
        "face_id": record.face_id,
        "decision": str(decision) if decision else None,
        "error_codes": json.dumps(codes),
        "created_at": _utc(record.created_at),
        "updated_at": _utc(record.updated_at),
        **{name: flags.get(name) for name in _FLAGS},
    }


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None else None


def _item_row(
    table: str, item: Mapping[str, Json], request_id: str | None, position: int
) -> dict[str, object]:
    values = _values(item, table)
    values |= {KEY: request_id, "position": position, "other": _json(_unmapped(item, table, values))}
    return values


def _values(document: Mapping[str, Json], table: str) -> dict[str, object]:
    by_name = {plain(key): value for key, value in document.items()}
    return {
        column.name: _READERS[column.type](_lookup(by_name, outer, inner)) if outer else None
        for column, outer, inner in _SOURCES[table]
    }


def _lookup(by_name: Mapping[str, Json], outer: str, inner: str) -> Json:
    value = by_name.get(outer)
    if not inner:
        return value
    return field(value, inner) if isinstance(value, dict) else None


def _unmapped(document: Mapping[str, Json], table: str, values: Mapping[str, object]) -> dict[str, Json]:
    """Return the fields of ``document`` whose values are in no column of the table.

    These are fields without a column in the table, and fields whose value has another type than their column.

    :param table: Name of the table.
    :param values: Values of the columns of the table, by column name.
    """
    rest = dict(document)
    keys = {plain(key): key for key in document}
    by_name = {name: document[key] for name, key in keys.items()}
    for column, outer, inner in _SOURCES[table]:
        # `is_held` is true if the field does not have to be returned: its value is in the column, or FACEKI has sent no
        # value. FACEKI sends null or an empty text for "no value".
        is_held = values[column.name] is not None or _lookup(by_name, outer, inner) in (None, "")
        if outer not in keys or not is_held:
            continue
        held = rest.get(keys[outer])
        if not inner:
            rest.pop(keys[outer], None)
        elif isinstance(held, dict):
            rest[keys[outer]] = {name: value for name, value in held.items() if plain(name) != plain(inner)}
    return {name: value for name, value in rest.items() if value not in (None, "", {}, [])}


def _text(value: Json) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    text = str(value)
    # JSON can contain a lone surrogate, which cannot be written to a file. It is replaced by a question mark.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _int(value: Json) -> int | None:
    number = as_number(value)
    # `number` is a float. A float represents each integer below 2**53 exactly, but not each larger integer. Therefore a
    # larger number is not converted.
    return int(number) if number is not None and abs(number) < 2**53 and number == int(number) else None


def _bool(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


def _date(value: Json) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else None
    except ValueError:
        return None


def _json(value: object) -> str | None:
    return json.dumps(value, sort_keys=True) if value not in (None, "", [], {}) else None


_READERS: dict[str, Callable[[Json], object]] = {
    "text": _text,
    "int": _int,
    "float": as_number,
    "bool": _bool,
    "date": _date,
    "time": lambda value: None,  # `_typed` reads the times
    "json": _json,
}

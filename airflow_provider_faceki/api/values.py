# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Functions that validate values, such as identifiers and codes, parse JSON, and convert JSON for a database.

The ``as_…`` functions return only numbers, and printable texts of limited length. They never return FACEKI's free text.

Do not log the results of two of these functions. The result of :func:`as_identifier` is possibly personal data. The
result of :func:`as_link_id` is the id of a link, and anyone with this id can use the link.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_faceki.api.errors import ValidationError

T = TypeVar("T")
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

#: Maximum length of an identifier in characters. A UUID has 36 characters.
MAX_IDENTIFIER_LENGTH = 512
#: Maximum nesting depth of FACEKI's answers. The depth is limited, because Python's recursive functions, such as
#: ``json.dumps``, fail at a depth of some hundred levels. A complete record has about five levels.
MAX_JSON_DEPTH = 100
#: Maximum nesting depth of JSON that is stored in Airflow's database. It must be below 100, because MySQL refuses JSON
#: with more than 100 levels.
MAX_STORED_DEPTH = 64
#: Largest absolute value of a response code. It has nine digits, because every number of nine digits fits into a 32-bit
#: integer.
MAX_CODE = 999_999_999

# Lower-case texts that stand for a missing value or a failed calculation. They are written by Python, Jinja, JSON,
# YAML, SQL dumps, JavaScript, pandas, pyarrow, R and spreadsheets.
_MISSING_WORDS = frozenset(
    {
        *("", "none", "null", "nil", "undefined", "~", "\\n", "(null)", "<null>", "<none>", "[null]"),
        *("nan", "-nan", "+nan", ".nan", "nat", "<nat>", "<na>", "na", "n/a", "pd.na", "pd.nat"),
        *("#n/a", "#n/a n/a", "#na", "#null!", "#ref!", "#value!", "#name?", "#num!", "#div/0!", "#error!"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("[object object]", "[object undefined]", "[object null]"),
    }
)
# Names of the types of the null objects of pandas, pyarrow and Polars. The code compares type names, because this
# module must not import these libraries.
_MISSING_TYPES = frozenset({"NAType", "NaTType", "NullScalar", "Null"})
# Characters that are removed from both ends of a text before the text is compared with the words for a missing value.
# They are the characters that `str.isspace` accepts, invisible characters (zero-width spaces, joiners, byte order mark)
# and quotation marks.
_AROUND = (
    " \t\r\n\f\v\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff\"'`"
)

#: Pattern of a UUID, which is the documented form of FACEKI's ids.
UUID_PATTERN = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_FACEKI_ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_LINK_ID = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,255}"
# Pattern of identifiers that are safe to log. Other text possibly contains personal data or line breaks. In a log, the
# text after a line break would look like a separate log line.
_LOGGABLE = r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}"
_WORD = r"[A-Za-z_][A-Za-z0-9_-]{0,39}"
_CODE = r"-?[0-9]{1,9}"
# A code name has two or more words in upper case that are joined by "_". A single word or a sentence is not accepted,
# because it is possibly a person's name.
_CODE_NAME = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"
_MAX_CODE_NAME_LENGTH = 64

_DURATION_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))

# A link id is masked in log lines only if it has at least this number of characters. Airflow 2.11 masks each occurrence
# of a masked text in a log, so the mask of a shorter id would also hide parts of ordinary words. Airflow 3 has the same
# minimum by default. FACEKI's ids have 36 characters.
_MIN_MASKED_LENGTH = 5

# These characters are replaced by U+FFFD before a text is stored, because PostgreSQL cannot store U+0000 in text, and a
# lone surrogate cannot be encoded in UTF-8.
_UNSTORABLE = "[\x00\ud800-\udfff]"
_REPLACEMENT = "\ufffd"
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1
# If an object has one of these keys, Airflow's XCom serializer refuses the object, or reads it as a serialized Python
# object.
_RESERVED_KEYS = frozenset({"__classname__", "__id__", "__version__", "__data__", "__type", "__var"})


def is_missing(value: object) -> bool:
    """Return whether ``value`` means "no value".

    The result is true for:

    * ``None``, and text that is blank or invisible;
    * the texts that programs write for a missing value (``None``, ``null``, ``undefined``, ``nan``, ``NaT``, ``<NA>``,
      ``N/A``, ``#N/A`` and others), in upper or lower case, with or without quotation marks;
    * a value that is not equal to itself, such as NaN;
    * the null objects of pandas, pyarrow, Polars and Jinja.

    The result is false for zero, ``False`` and empty lists.
    """
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip(_AROUND).lower() in _MISSING_WORDS
    kind = type(value)
    if kind.__name__ in _MISSING_TYPES or (
        kind.__name__.endswith("Undefined") and kind.__module__.startswith("jinja2")
    ):
        return True
    try:
        return bool(value != value)
    except Exception:  # noqa: BLE001 - comparisons of other libraries raise any exception; arrays have no truth value
        return False


def check_identifier(name: str, value: object) -> str:
    """Return ``value`` if it is a valid identifier for FACEKI.

    The error text contains the name of the argument. It does not contain the value, because the value is possibly a
    link, or personal data such as the number of an identity card. There is one exception: a text for a missing value,
    such as ``'None'``, is shown in the error text.

    :param name: Name of the argument, for the error message.
    :param value: Value of the argument, after template rendering.
    :raises ValidationError: if the value is not text, means "no value", is too long, or contains unprintable
        characters.
    """
    if is_missing(value):
        raise ValidationError(_missing_text(name, value))
    if not isinstance(value, str):
        raise ValidationError(
            f"{name} must be text, not {type(value).__name__}. If a template renders it, the DAG's "
            "render_template_as_native_obj=True may have turned the text into that (2026_0001 becomes 20260001): "
            "set it to False, or let the template render quotation marks around the text"
        )
    if len(value) > MAX_IDENTIFIER_LENGTH or not value.isprintable():
        raise ValidationError(f"{name} must be printable text of at most {MAX_IDENTIFIER_LENGTH} characters")
    return value


def _missing_text(name: str, value: object) -> str:
    if isinstance(value, str) and value.strip(_AROUND):
        return (
            f"{name} is {value.strip()!r}, which a template or an export writes in place of a missing "
            "value: leave the argument out, or give it a value"
        )
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{name} is empty{kind}: the template, row or argument that gives it had no value"


def is_identifier(value: object) -> bool:
    """Return whether :func:`check_identifier` accepts ``value``."""
    try:
        check_identifier("", value)
    except ValidationError:
        return False
    return True


def as_identifier(value: object) -> str | None:
    """Return ``value`` if :func:`check_identifier` accepts it, otherwise ``None``.

    Use this function for identifiers in FACEKI's answers, because a wrong identifier in an answer must not cause an
    error.
    """
    return value if isinstance(value, str) and is_identifier(value) else None


def as_faceki_id(value: object) -> str | None:
    """Return ``value`` if it has the form of an id that FACEKI assigns, otherwise ``None``.

    FACEKI documents that its ids are UUIDs. This function also accepts other ids. An id has 1 to 128 characters, which
    are ASCII letters, digits and ``._:-``. An id begins with a letter or a digit.
    """
    return value if isinstance(value, str) and re.fullmatch(_FACEKI_ID, value) else None


def is_uuid(value: object) -> bool:
    """Return whether a value has the documented form of FACEKI's ids, which are UUIDs."""
    return isinstance(value, str) and re.fullmatch(UUID_PATTERN, value.strip()) is not None


def loggable(identifier: object) -> str:
    """Return the identifier if it is safe to log. Otherwise return the text ``(not shown here)``."""
    return (
        identifier
        if isinstance(identifier, str) and re.fullmatch(_LOGGABLE, identifier)
        else "(not shown here)"
    )


def format_duration(seconds: float) -> str:
    """Return a duration as text, with its two largest units, such as ``3 days`` or ``1 hour 5 minutes``."""
    left, parts = round(max(0.0, seconds)), []
    if left == 0 and seconds > 0:
        return f"{seconds:.2g} seconds"
    for size, name in _DURATION_UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "0 seconds"


def is_maskable(link: str) -> bool:
    """Return whether a link id is long enough to be masked in log lines."""
    return len(link) >= _MIN_MASKED_LENGTH


def as_link_id(value: object) -> str | None:
    """Return the id of a verification link, or ``None`` if ``value`` is neither a link id nor the URL of a link.

    The id in a URL is the query parameter ``link``, ``linkId`` or ``link_id``, in upper or lower case. If the URL has
    no such parameter, the id is the last path segment.
    """
    if not isinstance(value, str) or is_missing(value):
        return None
    text = value.strip()
    if "://" in text:
        text = _link_id_of_url(text)
    return text if re.fullmatch(_LINK_ID, text) else None


def _link_id_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = [
            text for name, text in parse_qsl(parts.query) if name.lower() in {"link", "linkid", "link_id"}
        ]
    except ValueError:
        return ""
    return named[0] if named else parts.path.rstrip("/").rpartition("/")[2]


def as_word(value: object) -> str | None:
    """Return ``value`` without outer white space if it is a single word, otherwise ``None``.

    A word has at most 40 ASCII letters, digits, ``-`` and ``_``, and begins with a letter or ``_``.
    """
    if not isinstance(value, str):
        return None
    word = value.strip()
    return word if re.fullmatch(_WORD, word) else None


def as_code(value: object) -> int | None:
    """Return ``value`` as a response code, or ``None``.

    A code is a whole number of at most nine digits. A text such as ``"8013"`` and a float such as ``8013.0`` are
    accepted.
    """
    if isinstance(value, str) and re.fullmatch(_CODE, value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) <= MAX_CODE else None


def as_number(value: object) -> float | None:
    """Return ``value`` as a finite number, or ``None``. A number in the form of text is accepted."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_code_name(value: object) -> str | None:
    """Return ``value`` if it has the form of a code name, such as ``FACE_CROPPED``, otherwise ``None``.

    The maximum length is 64 characters.
    """
    if not isinstance(value, str) or len(value) > _MAX_CODE_NAME_LENGTH:
        return None
    return value if re.fullmatch(_CODE_NAME, value) else None


def parse_json(text: str | bytes) -> Json:
    """Parse a JSON text from FACEKI.

    A number such as 1e999, which is too large for a float, is returned as text.

    :raises ValueError: if the text is not JSON, contains NaN or Infinity, contains an integer with thousands of digits,
        or is nested deeper than :data:`MAX_JSON_DEPTH` levels.
    """
    try:
        document: Json = json.loads(text, parse_float=_float, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # A document has at least as many opening brackets as nesting levels. So a document with at most `MAX_JSON_DEPTH`
    # opening brackets is not nested too deeply, and the slow function `_is_deep` is not needed. Almost every answer is
    # such a document.
    brackets = (
        text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    )
    if brackets > MAX_JSON_DEPTH and _is_deep(document):
        raise ValueError("nested too deeply")
    return document


def _float(text: str) -> float | str:
    # For a number such as 1e999, Python's JSON parser returns infinity, which is not valid JSON. Therefore such a
    # number remains text.
    number = float(text)
    return number if math.isfinite(number) else text


def _refuse(constant: str) -> Json:
    # Python's JSON parser accepts NaN and Infinity. They are refused here, because they are not valid JSON and
    # databases cannot store them.
    raise ValueError(constant)


def _is_deep(document: Json) -> bool:
    # The loop visits one nesting level after the other. A recursive function would fail at a large depth.
    level: list[Any] = [document]
    for _ in range(MAX_JSON_DEPTH + 1):
        containers = [item for item in level if isinstance(item, list | dict)]
        level = [
            inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(containers)


def storable(document: T) -> T:
    """Return ``document`` in a form that PostgreSQL, MySQL, SQLite and Airflow's XCom can store.

    * U+0000 and lone surrogates become U+FFFD.
    * Integers beyond 64 bits, NaN and infinity become text.
    * Lists and objects nested deeper than 64 levels become JSON text.
    * Keys that Airflow reserves (``__classname__`` and others) lose one leading underscore.
    * If a changed key is equal to another key of the object, underscores are appended to the changed key.

    All other values are unchanged.
    """
    return cast("T", _storable(cast("Json", document), 0))


def _storable(value: Json, depth: int) -> Json:
    if isinstance(value, str):
        return re.sub(_UNSTORABLE, _REPLACEMENT, value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if _MIN_INT64 <= value <= _MAX_INT64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= MAX_STORED_DEPTH:
        return re.sub(_UNSTORABLE, _REPLACEMENT, json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return [_storable(item, depth + 1) for item in value]
    stored: dict[str, Json] = {}
    for key, item in value.items():
        stored[_storable_key(key, value, stored)] = _storable(item, depth + 1)
    return stored


def _storable_key(key: str, document: Mapping[str, Json], stored: Mapping[str, Json]) -> str:
    """Return the key of a JSON object in a form that a database and Airflow can store.

    A key is changed if it contains an unstorable character, or if Airflow reserves it. A changed key must not be equal
    to another key, so underscores are appended to it if necessary.

    :param document: The object with its original keys.
    :param stored: The part of the object that is already converted, with its new keys.
    """
    new = re.sub(_UNSTORABLE, _REPLACEMENT, key)
    new = new[1:] if new in _RESERVED_KEYS else new
    while new != key and (new in document or new in stored):
        new += "_"
    return new

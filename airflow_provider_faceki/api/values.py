# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The one definition of a missing value, of an identifier, of FACEKI's ids and words, and of what can be stored.

=====================================  ====================================================================
:func:`is_missing`                     the value stands for "nothing", in any spelling
:func:`check_identifier`               refuse what cannot be an identifier; return it as text otherwise
:func:`is_identifier`                  the same as a yes or no
:func:`as_identifier`                  the caller's own identifier in an answer, or ``None``
:func:`as_faceki_id`                   an id that FACEKI made (request, face), or ``None``
:func:`as_link_id`                     the id of a link, also taken from the link's URL, or ``None``
:func:`as_word`                        a decision or status, or ``None``
:func:`as_code`                        a response code, or ``None``
:func:`as_code_name`                   the name of a response code, or ``None``
:func:`as_number`                      a finite number, or ``None``
:func:`storable`                       a JSON document that every database of Airflow can store
=====================================  ====================================================================

The ``as_…`` functions return only what is safe in XCom, trigger events, log lines and error texts: bounded, printable,
without control characters. FACEKI's free text stays in the record.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_faceki.api.errors import ValidationError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

#: Longest identifier in characters. A UUID has 36.
MAX_IDENTIFIER_LENGTH = 512
#: Deepest nesting that is stored as JSON; MySQL takes 100 levels.
MAX_STORED_DEPTH = 64
#: Largest absolute value of a response code.
MAX_CODE = 999_999_999

# What programs write where they have no value, in small letters: Python, Jinja, JSON, YAML, SQL dumps, JavaScript,
# pandas, pyarrow, R and spreadsheets.
_MISSING_WORDS = frozenset(
    {
        *("", "none", "null", "nil", "undefined", "~", "\\n", "(null)", "<null>", "<none>", "[null]"),
        *("nan", "-nan", "+nan", ".nan", "nat", "<nat>", "<na>", "na", "n/a", "pd.na", "pd.nat"),
        *("#n/a", "#n/a n/a", "#na", "#null!", "#ref!", "#value!", "#name?", "#num!", "#div/0!", "#error!"),
        *(
            "1.#ind",
            "-1.#ind",
            "1.#qnan",
            "-1.#qnan",
            "[object object]",
            "[object undefined]",
            "[object null]",
        ),
    }
)
# Objects that stand for a missing value in libraries which this module must not import: pandas, pyarrow, Jinja, Polars.
_MISSING_TYPES = frozenset({"NAType", "NaTType", "NullScalar", "Null"})
# White space, quotation marks, and characters that no one sees: zero-width spaces, joiners, the byte order mark.
_AROUND = " \t\r\n\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff\"'`"

_FACEKI_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LINK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,255}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_CODE = re.compile(r"-?[0-9]{1,9}")
# A code's name has several words in capitals; one capital word or a sentence may be a person.
_CODE_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_MAX_CODE_NAME_LENGTH = 64

# Not stored as text anywhere: U+0000 by PostgreSQL, halves of surrogate pairs by any encoder.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_MIN_INT64, _MAX_INT64 = -(2**63), 2**63 - 1
# Airflow's XCom serializer refuses or interprets objects that have one of these keys.
_RESERVED_KEYS = frozenset({"__classname__", "__id__", "__version__", "__data__", "__type", "__var"})


def is_missing(value: object) -> bool:
    """Return whether ``value`` stands for "nothing".

    True for ``None``, for blank text, for the words that programs write in place of a value (``None``, ``null``,
    ``undefined``, ``nan``, ``NaT``, ``<NA>``, ``N/A``, ``#N/A`` and others, in any case and also within quotation
    marks), for a float or decimal that is not a number, and for the null objects of pandas, pyarrow and Jinja. Zero,
    ``False`` and empty lists are values.
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
    return _is_not_equal_to_itself(value)


def _is_not_equal_to_itself(value: object) -> bool:
    """True for NaN of ``float``, ``Decimal`` and numpy, and for NaT."""
    try:
        return bool(value != value)
    except Exception:  # noqa: BLE001 - a library's comparison may raise anything; arrays refuse to be true or false
        return False


def check_identifier(name: str, value: object) -> str:
    """Return ``value``, an identifier that can be sent to FACEKI.

    The error names the argument and never shows the value, which may be a person's number or a link.

    :param name: The argument, for the error.
    :param value: What was given, after rendering.
    :raises ValidationError: it is not text, stands for nothing, is too long, or holds unprintable characters.
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
            f"{name} is {value.strip()!r}, which is what a template or an export writes in place of a missing value; "
            "as an identifier it would be shared by all whose identifier is missing"
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
    """Return the caller's own identifier as an answer holds it; ``None`` if it is missing or no identifier."""
    return value if isinstance(value, str) and is_identifier(value) else None


def as_faceki_id(value: object) -> str | None:
    """Return an id that FACEKI made: at most 128 letters, digits and ``._:-``. FACEKI documents UUIDs."""
    return value if isinstance(value, str) and _FACEKI_ID.fullmatch(value) else None


def as_link_id(value: object) -> str | None:
    """Return the id of a verification link: ``value`` itself, or the end of it if it is the link's URL."""
    if not isinstance(value, str) or is_missing(value):
        return None
    text = value.strip()
    if "://" in text:
        text = _link_id_of_url(text)
    return text if _LINK_ID.fullmatch(text) else None


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
    """Return a decision or status: one word of at most 40 letters, digits, ``-`` and ``_``."""
    if not isinstance(value, str):
        return None
    word = value.strip()
    return word if _WORD.fullmatch(word) else None


def as_code(value: object) -> int | None:
    """Return a response code, which may have been sent as text or as a float."""
    if isinstance(value, str) and _CODE.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) <= MAX_CODE else None


def as_number(value: object) -> float | None:
    """Return a finite number, which may have been sent as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_code_name(value: object) -> str | None:
    """Return what has the form of a code's name, such as ``FACE_CROPPED``."""
    is_name = isinstance(value, str) and len(value) <= _MAX_CODE_NAME_LENGTH and _CODE_NAME.fullmatch(value)
    return value if isinstance(value, str) and is_name else None


def storable(document: Json) -> Json:
    """Return ``document`` in a form that PostgreSQL, MySQL and SQLite store and Airflow's XCom takes.

    U+0000 and halves of surrogate pairs become U+FFFD; integers beyond 64 bits and numbers that JSON does not know
    become text; what is nested deeper than 64 levels becomes JSON text; the keys that Airflow reserves
    (``__classname__`` and others) lose one leading underscore. Everything else stays as it is.
    """
    return _storable(document, 0)


def _storable(value: Json, depth: int) -> Json:
    if isinstance(value, str):
        return _UNSTORABLE.sub(_REPLACEMENT, value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if _MIN_INT64 <= value <= _MAX_INT64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= MAX_STORED_DEPTH:
        return _UNSTORABLE.sub(_REPLACEMENT, json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return [_storable(item, depth + 1) for item in value]
    return {_storable_key(key): _storable(item, depth + 1) for key, item in value.items()}


def _storable_key(key: str) -> str:
    key = _UNSTORABLE.sub(_REPLACEMENT, key)
    return key[1:] if key in _RESERVED_KEYS else key

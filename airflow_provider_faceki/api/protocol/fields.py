# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Search for fields and objects in FACEKI's answers. Nested objects and other spellings of the names are included.

FACEKI's documentation has not been compared with the live service. Therefore other formats than the documented formats
are accepted too. For example, ``request_id`` is accepted instead of ``requestId``, and records are found in ``result``,
in ``data`` and in ``{"result": {"records": […]}}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from airflow_provider_faceki.api.values import Json, parse_json

#: Maximum number of nested levels of a JSON document that a search visits.
MAX_WRAPPINGS = 6
#: Maximum length of a field name for which other spellings are accepted. No field of FACEKI has a longer name. Longer
#: names are not converted, because the conversion would be slow, and the cache of :func:`plain` would keep them in
#: memory.
MAX_NAME_LENGTH = 100
#: Maximum number of JSON keys that :func:`describe_keys` names. A complete record has about 20 keys, so all of them are
#: named.
MAX_SHOWN_KEYS = 30

# Names of the fields that contain the content of an answer. The most probable names are first. The names are in lower
# case, without `_`, `-` and white space, as the function `plain` returns them.
_WRAPPERS = (
    *("result", "data", "results", "records", "record", "items", "item", "list", "rows", "docs", "content"),
    *("response", "payload", "body", "verification", "verifications", "kycrecords", "kycresponse", "rules"),
)
# A JSON key is possibly personal data or an id. Therefore a description shows a key only if it looks like a field name.
# Such a key has digits only at the end, and at most two. Almost every id also has digits in other places, so almost no
# id is shown.
_KEY_NAME = re.compile(r"[A-Za-z_$][A-Za-z_$-]{0,39}[0-9]{0,2}")


def plain(name: str) -> str:
    """Return ``name`` in lower case, without ``_``, ``-`` and white space.

    So the usual spellings of a name, such as ``requestId`` and ``request_id``, become equal. A name with more than
    :data:`MAX_NAME_LENGTH` characters is returned unchanged.
    """
    return _plain(name) if len(name) <= MAX_NAME_LENGTH else name


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def field(document: Mapping[str, Json], *names: str) -> Json:
    """Return the first value that is not null among the fields ``names``, or ``None``.

    First, only fields with exactly these names are read. If none of these fields has a value, other spellings of the
    names are accepted.
    """
    for name in names:
        if document.get(name) is not None:
            return document[name]
    wanted = [plain(name) for name in names]
    found = {plain(key): value for key, value in document.items() if value is not None}
    return next((found[name] for name in wanted if name in found), None)


def has_field(document: Mapping[str, Json], *names: str) -> bool:
    """Return whether a JSON object has one of the fields ``names``, in any spelling. The value can be null."""
    wanted = {plain(name) for name in names}
    return any(plain(key) in wanted for key in document)


def holds_field(document: Json, name: str, depth: int = MAX_WRAPPINGS) -> bool:
    """Return whether an object in the first ``depth`` levels of the document has a non-null field ``name``."""
    if not depth or not isinstance(document, dict | list):
        return False
    if isinstance(document, dict) and field(document, name) is not None:
        return True
    inner = document.values() if isinstance(document, dict) else document
    return any(holds_field(item, name, depth - 1) for item in inner)


def find_objects(
    document: Json, is_wanted: Callable[[Mapping[str, Json]], bool]
) -> list[dict[str, Json]] | None:
    """Search a JSON document and return the objects for which ``is_wanted`` returns true.

    An object inside a wanted object is not returned. Deeper levels than :data:`MAX_WRAPPINGS` are not searched. In a
    list, each item must be a wanted object, contain a wanted object, or be an empty object or list. If the list has any
    other item, no object of the list is returned.

    :param is_wanted: Function that receives a JSON object and returns whether it is wanted.
    :returns: The wanted objects. If no object is found, the result is one of these two:

        - An empty list, if the document is an empty list, or if a field such as ``result`` contains an empty list, an
          empty object or null.
        - ``None`` in all other cases, because the document has an unknown format.
    """
    if not isinstance(document, dict):
        return _search(document, is_wanted, 0)
    # `document` is the outer object of an answer. This object contains the content of the answer in a field such as
    # `result`. `is_wanted` usually tests whether an object has a certain field, such as `requestId`. Both the outer
    # object and an object of the content can have this field. The content is searched first, so that the object of the
    # content is returned.
    inner = {key: value for key, value in document.items() if plain(key) in _WRAPPERS}
    found = _search(inner, is_wanted, 0) if inner else None
    if not found and is_wanted(document):
        return [document]
    return found or _search(document, is_wanted, 0) or found


def _search(
    value: Json, is_wanted: Callable[[Mapping[str, Json]], bool], depth: int
) -> list[dict[str, Json]] | None:
    value = embedded(value)
    if depth > MAX_WRAPPINGS:
        return None
    if isinstance(value, list):
        found: list[dict[str, Json]] = []
        for item in value:
            inner = _search(item, is_wanted, depth + 1) if item != {} else []
            if inner is None or item is None:
                return None
            found += inner
        return found
    if not isinstance(value, dict) or not value:
        return None
    return [value] if is_wanted(value) else _search_object(value, is_wanted, depth)


def _search_object(
    value: dict[str, Json], is_wanted: Callable[[Mapping[str, Json]], bool], depth: int
) -> list[dict[str, Json]] | None:
    by_name = {plain(key): item for key, item in value.items()}
    says_none = False
    for name in _WRAPPERS:
        if name not in by_name:
            continue
        inner = _search(by_name[name], is_wanted, depth + 1)
        if inner:
            return inner
        is_null = by_name[name] in (None, {}) and (depth == 0 or len(value) == 1)
        says_none = says_none or inner == [] or is_null
    others = (item for name, item in by_name.items() if name not in _WRAPPERS)
    found = [item for other in others for item in _search(other, is_wanted, depth + 1) or []]
    return found or ([] if says_none else None)


def says_none(document: Json, depth: int = 0) -> bool:
    """Return True if the content of an answer is an empty list.

    The content is the answer itself, or the value of a content field, such as ``result`` or ``records``. A content
    field can be inside other content fields, as in ``{"result": {"records": []}}``.
    """
    document = embedded(document)
    if isinstance(document, dict) and depth <= MAX_WRAPPINGS:
        inner = (value for key, value in document.items() if plain(key) in _WRAPPERS)
        return any(says_none(value, depth + 1) for value in inner)
    return document == []


def embedded(value: Json) -> Json:
    """Return the parsed document if ``value`` is the text of a JSON object or list. Return other values unchanged."""
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def texts(value: Json, depth: int = 3, *, in_lists: bool = True) -> Iterator[tuple[str, str]]:
    """Yield a pair of key and text for each text in ``value``. The key has the form that :func:`plain` returns.

    :param depth: Maximum nesting level of the objects that are visited.
    :param in_lists: Whether the texts in lists are included.
    """
    for name, item in value.items() if isinstance(value, dict) else (("", value),):
        for inner in item if isinstance(item, list) and in_lists else (item,):
            if isinstance(inner, str):
                yield plain(name), inner
            elif isinstance(inner, dict) and depth:
                yield from texts(inner, depth - 1, in_lists=in_lists)


def as_flag(value: Json) -> bool | None:
    """Return ``value`` as a boolean, or ``None`` if it does not represent a boolean.

    Besides booleans, the texts true, false, yes and no are accepted, and also 0 and 1 as text or as a number.
    """
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words.get(str(value).strip().lower()) if isinstance(value, str | int) else None


def describe(document: Json) -> str:
    """Return a description of a JSON document with its type and its keys, but without values.

    Keys that do not look like field names are only counted. Of the nested objects, only the first is described.
    """
    if isinstance(document, dict):
        inner = next((item for item in document.values() if isinstance(item, dict) and item), None)
        nested = f", and in it {describe_keys(inner)}" if inner else ""
        return f"an object with {describe_keys(document)}{nested}"
    if document == []:
        return "an empty list"
    if isinstance(document, list):
        first = next((item for item in document if isinstance(item, dict)), None)
        return f"a list of {len(document)}" + (f" objects with {describe_keys(first)}" if first else "")
    names = {type(None): "null", str: "a text", bool: "true or false"}
    return names.get(type(document), "a number")


def describe_keys(document: Mapping[str, Json]) -> str:
    """Return a text with the keys of a JSON object. Keys that do not look like field names are only counted."""
    shown = sorted(key for key in document if _KEY_NAME.fullmatch(key))[:MAX_SHOWN_KEYS]
    more = len(document) - len(shown)
    if not shown:
        return f"{more} keys" if more else "no keys"
    return f"the keys {', '.join(shown)}" + (f" and {more} more" if more else "")

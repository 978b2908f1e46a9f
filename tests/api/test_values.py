# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Missing values, identifiers, FACEKI's ids and decisions, and storable JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal

import jinja2
import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import (
    MAX_STORED_DEPTH,
    Json,
    as_code,
    as_code_name,
    as_faceki_id,
    as_identifier,
    as_link_id,
    as_word,
    check_identifier,
    is_identifier,
    is_missing,
    parse_json,
    storable,
)

IMAGE = api.Image.of_bytes("image", b"\xff\xd8\xff" + b"a" * 20)

WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x110000))))
MISSING_WORDS = [
    *("", " ", "\t\n", "\u00a0", "\u200b", "\ufeff", "''", '""', WHITE_SPACE, "\u3000nan\x85"),
    *("None", "none", "NONE", " None ", "null", "NULL", "Null", '"null"', "nil", "undefined", "Undefined"),
    *("nan", "NaN", "-nan", "NaT", "<NA>", "NA", "N/A", "n/a", "#N/A", "#NA", "#REF!", "#VALUE!", "#DIV/0!"),
    *("\\N", "(null)", "<null>", "~", "[object Object]", "1.#QNAN"),
]


class NAType:
    """A class with the name and the comparison of ``pandas.NA``."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NaTType:
    """A class with the name and the comparison of ``pandas.NaT``."""

    def __eq__(self, other: object) -> bool:
        return False


class NullScalar:
    """A class with the name of pyarrow's null object."""


MISSING_OBJECTS = [
    pytest.param(None, id="None"),
    pytest.param(math.nan, id="float"),
    pytest.param(Decimal("NaN"), id="decimal"),
    pytest.param(jinja2.Undefined(), id="jinja"),
    pytest.param(jinja2.ChainableUndefined(), id="jinja, chainable"),
    pytest.param(NAType(), id="pandas.NA"),
    pytest.param(NaTType(), id="pandas.NaT"),
    pytest.param(NullScalar(), id="pyarrow"),
]


@pytest.mark.parametrize("word", [pytest.param(word, id=ascii(word)) for word in MISSING_WORDS])
def test_a_missing_value_as_text(word: str) -> None:
    assert is_missing(word)
    assert not is_identifier(word)


@pytest.mark.parametrize("value", MISSING_OBJECTS)
def test_a_missing_value_as_an_object(value: object) -> None:
    assert is_missing(value)
    with pytest.raises(api.ValidationError, match="record_identifier is empty"):
        check_identifier("record_identifier", value)


@pytest.mark.parametrize(
    "value", [0, 0.0, False, [], {}, b"", "0", "none-1", "Nonesuch", "nullable", "NA-1", "customer-undefined"]
)
def test_a_value_that_is_given(value: object) -> None:
    assert not is_missing(value)


def _verify(workflow_id: str, record_identifier: str) -> object:
    return api.PerformKycVerification(
        workflow_id=workflow_id,
        selfie=IMAGE,
        documents=[api.Document(IMAGE)],
        record_identifier=record_identifier,
    )


CALLS = [
    pytest.param(lambda word: _verify("w", word), id="verify"),
    pytest.param(lambda word: _verify(word, "mine"), id="verify, workflow"),
    pytest.param(lambda word: api.FindKycVerification(record_identifier=word), id="find"),
    pytest.param(lambda word: api.FindKycVerification(request_id=word), id="find by request id"),
    pytest.param(lambda word: api.GenerateKycLink(workflow_id="w", record_identifier=word), id="link"),
    pytest.param(lambda word: api.GenerateKycLink(workflow_id=word), id="link, workflow"),
    pytest.param(lambda word: api.GetWorkflowRules(workflow_id=word), id="rules"),
    pytest.param(lambda word: api.FetchRecords(link=word), id="fetch by link"),
    pytest.param(lambda word: api.FetchPdfReport(word), id="report"),
]


@pytest.mark.parametrize("word", ["None", "null", "Undefined", " None ", "NaN", "<NA>", "#N/A"])
@pytest.mark.parametrize("make", CALLS)
def test_no_call_takes_a_missing_value_for_an_identifier(make: Callable[[str], object], word: str) -> None:
    with pytest.raises(
        api.ValidationError, match=f"is '{word.strip()}', which a template or an export writes"
    ):
        make(word)


@pytest.mark.parametrize("value", [20260001, 1.5, True, b"case-1", ["case-1"], {"case": 1}])
@pytest.mark.parametrize("make", CALLS)
def test_no_call_takes_another_type_for_an_identifier(
    make: Callable[[object], object], value: object
) -> None:
    with pytest.raises(
        api.ValidationError, match=f"must be text, not {type(value).__name__}.*render_template_as_native_obj"
    ):
        make(value)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        pytest.param("case-1", True, id="plain"),
        pytest.param("Fall Nr. 7/ä", True, id="printable"),
        pytest.param("none-1", True, id="begins like a missing value"),
        pytest.param("a" * 512, True, id="longest"),
        pytest.param("a" * 513, False, id="too long"),
        pytest.param("a\nb", False, id="line end"),
        pytest.param("a\0b", False, id="U+0000"),
        pytest.param("a\ud800b", False, id="half a surrogate pair"),
        pytest.param("a\x1b[31mb", False, id="terminal control"),
        pytest.param("a\u202eb", False, id="direction override"),
        pytest.param("undefined", False, id="what an SDK of FACEKI sends"),
    ],
)
def test_identifiers(value: str, is_one: bool) -> None:
    assert is_identifier(value) is is_one
    assert as_identifier(value) == (value if is_one else None)


def test_what_a_faceki_sdk_sends_for_none_can_be_fetched() -> None:
    assert api.FetchRecords(record_identifier="undefined").request().query == (
        ("record_identifier", "undefined"),
    )
    with pytest.raises(api.ValidationError, match="which a template or an export writes"):
        api.FetchRecords(record_identifier="None")


HOSTILE = [
    *("a\0b1", "a\n1", "a1\nERROR forged", "Maria Invented 1", "\ud83d1", "1" * 300, "", " ", "<b>1</b>"),
    *(None, 7, True, 1.5, ["r-1"], {"id": "r-1"}),
]


@pytest.mark.parametrize("read", [as_faceki_id, as_link_id, as_word, as_code_name])
@pytest.mark.parametrize("value", [pytest.param(value, id=ascii(value)[:30]) for value in HOSTILE])
def test_free_text_is_accepted_neither_as_id_nor_as_word(
    read: Callable[[object], str | None], value: object
) -> None:
    assert read(value) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param("3f6f2a52-7f0e-4c35-9d3b-0a8f4f1c2d71", True, id="UUID"),
        pytest.param("r-1", True, id="short"),
        pytest.param("Maria Invented", False, id="a name"),
        pytest.param("..", False, id="a folder"),
    ],
)
def test_ids_of_faceki(value: str, found: bool) -> None:
    assert as_faceki_id(value) == (value if found else None)


@pytest.mark.parametrize(
    ("value", "link"),
    [
        pytest.param("l-1", "l-1", id="id"),
        pytest.param(" l-1 ", "l-1", id="with spaces"),
        pytest.param("https://apps.faceki.com/kycverify/l-1", "l-1", id="URL"),
        pytest.param("https://verification.faceki.com/l-1/", "l-1", id="another host, slash at the end"),
        pytest.param("https://apps.faceki.com/kycverify?link=l-1", "l-1", id="in the query"),
        pytest.param("https://apps.faceki.com/?linkId=l-1#top", "l-1", id="in the query, another name"),
        pytest.param("https://apps.faceki.com/", None, id="URL without an id"),
        pytest.param("https://[", None, id="broken URL"),
        pytest.param("undefined", None, id="missing"),
    ],
)
def test_ids_of_links(value: str, link: str | None) -> None:
    assert as_link_id(value) == link


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(5, 5, id="number"),
        pytest.param("5", 5, id="text"),
        pytest.param("-5", -5, id="negative"),
        pytest.param("5 ", None, id="text with a space"),
        pytest.param("\u0665", None, id="other digits"),
        pytest.param("1" * 10, None, id="long text"),
        pytest.param(10**9, None, id="large number"),
        pytest.param(2**70, None, id="beyond 64 bits"),
        pytest.param(5.0, 5, id="whole float"),
        pytest.param(5.5, None, id="float"),
        pytest.param(math.inf, None, id="infinity"),
        pytest.param(True, None, id="true"),
        pytest.param(None, None, id="null"),
        pytest.param([5], None, id="list"),
    ],
)
def test_codes(value: object, code: int | None) -> None:
    assert as_code(value) == code


def _nested(depth: int) -> Json:
    document: Json = ["\0"]
    for _ in range(depth):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    ("document", "stored"),
    [
        pytest.param("a\0b", "a\ufffdb", id="U+0000"),
        pytest.param("\ud83d", "\ufffd", id="half a surrogate pair"),
        pytest.param("\U0001f600", "\U0001f600", id="a whole character"),
        pytest.param(2**63 - 1, 2**63 - 1, id="largest integer"),
        pytest.param(2**63, "9223372036854775808", id="too large an integer"),
        pytest.param(-(2**63) - 1, "-9223372036854775809", id="too small an integer"),
        pytest.param(math.inf, "inf", id="infinity"),
        pytest.param(True, True, id="true"),
        pytest.param({"a\0": ["\0", {"b": "\ud800"}]}, {"a\ufffd": ["\ufffd", {"b": "\ufffd"}]}, id="nested"),
        pytest.param({"__classname__": "x", "__id__": 1}, {"_classname__": "x", "_id__": 1}, id="reserved"),
        pytest.param(None, None, id="null"),
    ],
)
def test_storable(document: Json, stored: Json) -> None:
    assert storable(document) == stored
    assert type(storable(document)) is type(stored)
    # A second conversion must not change the document.
    assert storable(stored) == stored


@pytest.mark.parametrize(
    ("document", "stored"),
    [
        ({"__type": 1, "_type": 2}, {"_type_": 1, "_type": 2}),
        ({"_type": 2, "__type": 1, "_type_": 3}, {"_type": 2, "_type__": 1, "_type_": 3}),
        ({"a\0": 1, "a\ufffd": 2, "a\0\0": 3}, {"a\ufffd_": 1, "a\ufffd": 2, "a\ufffd\ufffd": 3}),
        (dict.fromkeys(("a\0", "a\ud800"), 1), dict.fromkeys(("a\ufffd", "a\ufffd_"), 1)),
    ],
)
def test_no_key_replaces_another_key(document: Json, stored: Json) -> None:
    assert storable(document) == stored
    assert storable(stored) == stored


@pytest.mark.parametrize(
    ("text", "document"),
    [
        pytest.param('{"a": [1.5, 2, null]}', {"a": [1.5, 2, None]}, id="usual"),
        pytest.param(b"\xef\xbb\xbf7", 7, id="bytes with a mark of the byte order"),
        pytest.param("[1e999, -1E+400, 1e308]", ["1e999", "-1E+400", 1e308], id="numbers beyond a float"),
        pytest.param("[" * 100 + "]" * 100, None, id="deepest"),
        pytest.param('{"a":[' * 50 + "]}" * 50, None, id="deepest, with objects"),
        pytest.param(json.dumps(["[{" * 100]), ["[{" * 100], id="brackets in a text"),
        pytest.param(json.dumps([[]] * 200), [[]] * 200, id="many lists that are not nested"),
    ],
)
def test_parsing_json(text: str | bytes, document: Json) -> None:
    parsed = parse_json(text)
    assert parsed == (json.loads(text) if document is None else document)
    # The document can be stored, and the stored form is valid JSON.
    json.dumps(storable(parsed), allow_nan=False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[", id="cut off"),
        pytest.param('{"a": NaN}', id="NaN"),
        pytest.param("[-Infinity]", id="infinity"),
        pytest.param("9" * 5000, id="an integer beyond Python's digits"),
        pytest.param("[" * 101 + "]" * 101, id="a level too deep"),
        pytest.param('{"a":[' * 50 + "[]" + "]}" * 50, id="a level too deep, with objects"),
        pytest.param("[" * 940 + "]" * 940, id="deep"),
        pytest.param("[" * 100_000, id="deeper than the parser can go"),
        pytest.param(b"\xff", id="bytes that are no text"),
    ],
)
def test_what_is_not_parsed(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(text)


def test_what_is_nested_too_deep_is_stored_as_text() -> None:
    depth, found = 0, storable(_nested(300))
    while isinstance(found, dict):
        depth, found = depth + 1, found["a"]
    assert depth == MAX_STORED_DEPTH
    assert isinstance(found, str)

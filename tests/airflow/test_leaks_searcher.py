# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The search for canaries finds a planted canary; otherwise the leak tests would prove nothing."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.airflow.canaries import NOWHERE, PERSON, SECRET, files_below, logs_clean_of, rows_of

LINK = "7d0c1d2e-3f40-4e8c-9f0f-6a0c1d2e3f40"


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        pytest.param(f"password={SECRET};", "secret", id="plain"),
        pytest.param(f"GET /?clientSecret={quote(SECRET, safe='')}", "secret", id="in a URL"),
        pytest.param(json.dumps({"a": json.dumps({"b": SECRET})}), "secret", id="in JSON within JSON"),
        pytest.param(base64.b64encode(f"id:{SECRET}".encode()).decode(), "secret", id="basic authentication"),
        pytest.param(
            base64.b64encode(f"ab:{SECRET}".encode()).decode(), "secret", id="the same, shifted by none"
        ),
        pytest.param(
            base64.b64encode(f"a:{SECRET}!".encode()).decode(), "secret", id="the same, shifted by two"
        ),
        pytest.param(PERSON["last_name"].upper() + "<<", "last_name", id="in a machine-readable zone"),
        pytest.param(f"Authorization: Bearer sbx-{'aB3_-' * 12}", "token", id="a token of the local FACEKI"),
        pytest.param(f"https://apps.example/kycverify/{LINK}?x", f"link {LINK}", id="a link in a URL"),
    ],
)
@pytest.mark.parametrize("where", ["file", "packed file", "database"])
def test_a_planted_canary_is_found(tmp_path: Path, planted: str, name: str, where: str) -> None:
    content = f"2026-01-01 INFO before\n2026-01-01 INFO {planted} after\n".encode()
    found = set()
    if where == "database":
        with sqlite3.connect(tmp_path / "a.db") as database:
            database.execute("CREATE TABLE logs (number, text)")
            database.execute("INSERT INTO logs VALUES (1, ?)", (content,))
        database.close()
        places = rows_of(tmp_path / "a.db")
    else:
        folder = tmp_path / "logs" / "dag_id=a"
        folder.mkdir(parents=True)
        (folder / "attempt=1.log").write_bytes(gzip.compress(content) if where == "packed file" else content)
        places = files_below(tmp_path)
    for _, text in places:
        found |= logs_clean_of([LINK]).found_in(text)
    assert name in found


def test_harmless_text_is_not_found() -> None:
    harmless = (
        b"FACEKI refuses the credentials or the token [connection 'faceki_default', HTTP 401] *** sbx-short"
    )
    assert logs_clean_of([LINK]).found_in(harmless) == set()
    assert list(NOWHERE.lines_in(harmless)) == []


def test_the_canary_search_returns_the_line() -> None:
    assert list(NOWHERE.lines_in(f"a\nb {SECRET}\nc".encode())) == [("secret", f"b {SECRET}")]

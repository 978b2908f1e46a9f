# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Any Connection is either accepted or refused with an explanation, and its secrets are never shown."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection import schema as form
from airflow_provider_faceki.connection.schema import ConnectionSettings
from tests.provider import connections

CANARY = "canary-7f3a-not-to-be-shown"
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

words = [
    "true",
    "False",
    "file",
    "generate_token",
    "X-Sig",
    "7",
    "1e400",
    "-0",
    "a" * 40,
    "\x00",
    "\ud800",
    CANARY,
]
SECRET_FIELDS = {name for name, spec in form.EXTRA_FIELDS.items() if spec.secret}
places = ["/a/{requestId}", "https://h.example", "localhost:1", "http://u:p@h", "{}", '{"http": "p"}']
plausible = st.sampled_from([*words, *places])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60) | plausible
values: st.SearchStrategy[Json] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
extras = st.dictionaries(st.sampled_from(sorted(form.EXTRA_FIELDS)) | st.text(max_size=20), values)
texts = st.none() | st.text(max_size=60) | plausible


def read(**fields: Any) -> ConnectionSettings | ConfigurationError:
    try:
        return connections.read(**fields)
    except ConfigurationError as error:
        return error


@given(login=texts, host=texts, port=st.none() | st.integers(), schema=texts, extra=values | extras)
def test_any_connection_is_understood_or_refused(
    login: str | None, host: str | None, port: int | None, schema: str | None, extra: Json
) -> None:
    found = read(login=login, password=CANARY, host=host, port=port, schema=schema, extra=extra)
    # The repr of a valid Connection is not searched for the secret. If the user has also written the secret into a
    # public field, repr shows this field.
    if isinstance(found, ConfigurationError):
        assert CANARY not in str(found) + repr(found)
    else:
        assert "client_secret" not in repr(found)


@given(
    extra=st.dictionaries(
        st.sampled_from([*sorted(SECRET_FIELDS), "proxies"]),
        st.text(max_size=20).map(lambda around: around + CANARY + around)
        | st.sampled_from([CANARY, CANARY * 3, f"http://u:{CANARY}@p", f'{{"http": "http://u:{CANARY}@p"}}'])
        | st.fixed_dictionaries(
            {"https": st.sampled_from([f"http://u:{CANARY}@p", CANARY, f"{CANARY}://p/x"])}
        ),
    ),
    others=extras,
)
def test_no_secret_field_is_ever_shown(extra: dict[str, Json], others: dict[str, Json]) -> None:
    kept = {key: value for key, value in others.items() if CANARY not in json.dumps(value)}
    found = read(login="client", password=f"{CANARY}-too", host=None, extra={**kept, **extra})
    assert CANARY not in str(found) + repr(found)


@given(st.text(max_size=80) | st.from_regex(r"https?://[a-z0-9:\[\]@.-]{1,20}(/[a-z?#.]*)?", fullmatch=True))
def test_a_base_url_is_usable_or_refused(host: str) -> None:
    found = read(login="client", password=CANARY, host=host)
    if isinstance(found, ConnectionSettings):
        assert found.base_url.startswith(("https://", "http://localhost", "http://127.", "http://[::1]"))
        assert not found.base_url.endswith("/")
        assert not set(found.base_url) & set("@?# \\\n\t")
        # The normalized value must have the same meaning when it is read again.
        again = read(login="client", password=CANARY, host=found.base_url)
        assert isinstance(again, ConnectionSettings)
        assert again.base_url == found.base_url

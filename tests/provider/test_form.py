# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Connection form in each Airflow version that has its own form.

Airflow 3.2 and later build the form from the provider info, and Airflow 3.1 builds it from the hook. For these
versions, the tests check the data that the API server sends to the browser. Airflow 2.11 builds the form from the hook.
For this version, the tests fill in the web pages, save them, and save them again.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.connection import form
from airflow_provider_faceki.connection.schema import EXTRA_FIELDS, ConnectionSettings
from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection
from tests.airflow.running import AIRFLOW_3, AIRFLOW_VERSION
from tests.provider.connections import read

HASH_KEY = "invented-hash-key-" + "k" * 32

only_airflow_2 = pytest.mark.skipif(AIRFLOW_3, reason="this form is Airflow 2's")
# Airflow 3.0 calls the hook only if the form libraries are installed. Airflow 3.0 does not install them, so its form is
# not tested.
only_airflow_3 = pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="this form is Airflow 3.1's and later")


@pytest.fixture(scope="module")
def hook_meta() -> dict[str, Any]:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    found = {entry.connection_type: entry for entry in HookMetaService.hook_meta_data()}
    meta: dict[str, Any] = found["faceki"].model_dump()
    return meta


@only_airflow_3
def test_standard_fields_in_airflow_3(hook_meta: dict[str, Any]) -> None:
    assert hook_meta["hook_name"] == "FACEKI"
    standard = hook_meta["standard_fields"]
    hidden = {"url_schema"} if AIRFLOW_VERSION >= (3, 2) else {"port", "url_schema"}
    assert {name for name, field in standard.items() if field and field["hidden"]} == hidden
    assert [standard[name]["title"] for name in ("login", "password", "host")] == [
        "Client ID",
        "Client Secret",
        "API base URL",
    ]
    assert standard["host"]["placeholder"] == "https://sdk.faceki.com (default)"


@only_airflow_3
def test_extra_fields_in_airflow_3(hook_meta: dict[str, Any]) -> None:
    fields = hook_meta["extra_fields"]
    assert list(fields) == [name for name, spec in EXTRA_FIELDS.items() if spec.in_form]
    for key, field in fields.items():
        assert field["schema"]["title"] == EXTRA_FIELDS[key].label
        assert field["description"] == form.description(EXTRA_FIELDS[key])
        assert field["value"] is None
    assert "***" not in json.dumps(fields)
    # On Save, the browser stores every field. Unchanged fields become null.
    untouched = {key: field["value"] for key, field in fields.items()}
    assert read(extra=untouched) == read()


class WebForm:
    """Client for Airflow 2's Connection pages. It behaves like a browser."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def show(self, url: str) -> tuple[str, dict[str, str]]:
        page = self.client.get(url)
        assert page.status_code == 200
        text = page.get_data(as_text=True)
        return text, dict(self.fields_of(text))

    @staticmethod
    def fields_of(page: str) -> Iterator[tuple[str, str]]:
        for tag in re.finditer(r"<(input|textarea)([^>]*)>", page):
            attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag[2]))
            value = attributes.get("value", "")
            if tag[1] == "textarea":
                value = page[tag.end() : page.index("</textarea>", tag.end())].strip()
            if attributes.get("name", "").startswith(
                ("extra", "host", "login", "password", "conn_id", "port", "schema", "description")
            ):
                yield attributes["name"], html.unescape(value)

    def save(self, url: str, fields: dict[str, str]) -> str:
        page = self.client.post(url, data={**fields, "conn_type": "faceki"})
        return "saved" if page.status_code == 302 else page.get_data(as_text=True)


@pytest.fixture(scope="module")
def web_form(airflow_db: Path) -> WebForm:
    from airflow.www.app import create_app

    config = {"WTF_CSRF_ENABLED": False, "AUTH_ROLE_PUBLIC": "Admin", "TESTING": True}
    return WebForm(create_app(config).test_client())


@pytest.fixture
def stored(web_form: WebForm) -> Iterator[Callable[[], Any]]:
    """Return a function that reads the stored Connection `kyc`. Delete the Connection after the test."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    def read_stored() -> Any:
        with create_session() as session:
            found = session.query(Connection).filter_by(conn_id="kyc").one()
            session.expunge(found)
            return found

    yield read_stored
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="kyc").delete()


def settings_of(conn: Any) -> ConnectionSettings:
    return settings_from_connection("kyc", StoredConnection.of(conn))


def put_into_the_database(extra: str) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(Connection).filter_by(conn_id="kyc").one().extra = extra


def extra(**fields: str) -> dict[str, str]:
    return {f"extra__faceki__{key}": value for key, value in fields.items()}


def own(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields that the page shows for this Connection type. JavaScript hides the fields of other types."""
    return {k: v for k, v in fields.items() if not k.startswith("extra__") or k.startswith("extra__faceki__")}


@only_airflow_2
def test_saving_twice_loses_nothing_in_airflow_2(web_form: WebForm, stored: Callable[[], Any]) -> None:
    _, empty = web_form.show("/connection/add")
    filled = own(empty) | {
        "conn_id": "kyc",
        "login": "client-7",
        "password": "invented-secret",
        "host": "http://127.0.0.1:8080/",
        **extra(timeout="12.5", max_attempts="3", verify="false", auth_flow="access_token_body"),
        **extra(proxies='{"http": "http://p.example"}', pii_hash_secret=HASH_KEY),
    }
    assert web_form.save("/connection/add", filled) == "saved"
    first = settings_of(stored())
    assert first.base_url == "http://127.0.0.1:8080"
    assert (first.timeout, first.max_attempts, first.verify) == (12.5, 3, False)
    assert first.proxies == (("http", "http://p.example"),)
    assert first.pii_hash_secret == HASH_KEY

    url = f"/connection/edit/{stored().id}"
    page, shown = web_form.show(url)
    assert HASH_KEY not in page
    assert web_form.save(url, own(shown) | {"description": "touched"}) == "saved"
    assert settings_of(stored()) == first


@only_airflow_2
def test_what_came_as_json_is_shown_as_json_in_airflow_2(
    web_form: WebForm, stored: Callable[[], Any]
) -> None:
    given = {"proxies": {"http": "http://p.example"}, "verify": True}
    start = {"conn_id": "kyc", "login": "i", "password": "invented", **extra(timeout="5")}
    assert web_form.save("/connection/add", start) == "saved"
    put_into_the_database(json.dumps(given))
    url = f"/connection/edit/{stored().id}"
    _, shown = web_form.show(url)
    assert json.loads(shown["extra__faceki__proxies"]) == given["proxies"]
    assert web_form.save(url, own(shown)) == "saved"
    again = settings_of(stored())
    assert (again.proxies, again.verify) == ((("http", "http://p.example"),), True)


@only_airflow_2
def test_what_the_form_does_not_show_is_kept_in_airflow_2(
    web_form: WebForm, stored: Callable[[], Any]
) -> None:
    start = {"conn_id": "kyc", "login": "i", "password": "invented", **extra(timeout="5")}
    assert web_form.save("/connection/add", start) == "saved"
    put_into_the_database(json.dumps({"auth_scheme": "Token", "timeout": 5}))
    url = f"/connection/edit/{stored().id}"
    _, shown = web_form.show(url)
    assert web_form.save(url, own(shown) | {"description": "touched"}) == "saved"
    assert settings_of(stored()).auth_scheme == "Token"


@only_airflow_2
def test_a_mistyped_form_keeps_the_new_secret_in_airflow_2(
    web_form: WebForm, stored: Callable[[], Any]
) -> None:
    start = {"conn_id": "kyc", "login": "i", "password": "invented", **extra(pii_hash_secret=HASH_KEY)}
    assert web_form.save("/connection/add", start) == "saved"
    url = f"/connection/edit/{stored().id}"
    _, shown = web_form.show(url)
    changed = own(shown) | extra(pii_hash_secret=HASH_KEY[::-1], max_attempts="soon")
    page = web_form.save(url, changed)
    assert "Not a valid integer value" in page
    corrected = dict(web_form.fields_of(page)) | extra(max_attempts="5")
    assert web_form.save(url, own(corrected)) == "saved"
    assert settings_of(stored()).pii_hash_secret == HASH_KEY[::-1]


@only_airflow_2
def test_labels_and_help_in_airflow_2(web_form: WebForm) -> None:
    page, _ = web_form.show("/connection/add")
    for spec in (spec for spec in EXTRA_FIELDS.values() if spec.in_form):
        assert html.escape(spec.label, quote=False) in page
        assert form.description(spec) in html.unescape(page)

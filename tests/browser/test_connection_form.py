# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Connection form in a browser: filled in, saved, tested and edited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.shared import SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow
from tests.provider import command_line

pytestmark = [pytest.mark.airflow, pytest.mark.usefixtures("shared_airflow")]

CONN_ID = "faceki_by_hand"
#: Command that prints the stored Connection, including its secret.
GET = "connections get {} -o json"
TEST = f"connections test {CONN_ID}"


def printed(airflow: WholeAirflow, *commands: str) -> list[str]:
    """Return the output of Airflow's own command line for each command."""
    # One process runs all of them, because importing Airflow takes longer than the commands.
    done = command_line.airflow(*map(str.split, commands), **airflow.environment)
    assert done.statuses == [0] * len(commands), done.outputs
    return done.outputs


def extra(connection: dict[str, Any]) -> dict[str, Any]:
    found = connection.get("extra_dejson") or json.loads(connection["extra"])
    return {name: value for name, value in found.items() if value not in (None, "")}


def open_form(page: Page, conn_id: str = CONN_ID) -> Locator:
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill(conn_id)
    form.get_by_role("combobox").first.click()
    page.keyboard.type("FACEKI")
    page.keyboard.press("Enter")
    expect(form.get_by_text("Client Secret")).to_be_visible()
    return form


def test_the_form_is_filled_saved_and_read_back(page: Page, airflow: WholeAirflow) -> None:
    with FacekiSandbox() as sandbox:
        form = open_form(page)
        fill(form, sandbox)
        form.get_by_role("button", name="Save").click()
        expect(page.get_by_role("cell", name=CONN_ID)).to_be_visible()

        got, tested = printed(airflow, GET.format(CONN_ID), TEST)
        (saved,) = json.loads(got)
        assert (saved["conn_type"], saved["host"]) == ("faceki", sandbox.url)
        assert (saved["login"], saved["password"]) == (sandbox.client_id, sandbox.client_secret)
        assert float(extra(saved)["timeout"]) == 12
        assert extra(saved)["workflow_id"] == "5a4db0c5-0000-4000-8000-000000000001"
        assert "Connection success!" in tested
        assert sandbox.counters.tokens_issued == 1

        change_timeout(page)
        expect(page.get_by_role("dialog")).to_have_count(0)
        got, tested = printed(airflow, GET.format(CONN_ID), TEST)
        (changed,) = json.loads(got)
        assert float(extra(changed)["timeout"]) == 34
        assert changed["password"] == sandbox.client_secret, "saving the form anew must keep the secret"
        assert "Connection success!" in tested


def fill(form: Locator, sandbox: FacekiSandbox) -> None:
    form.locator("input[name=host]").fill(sandbox.url)
    form.locator("input[name=login]").fill(sandbox.client_id)
    form.locator("input[name=password]").fill(sandbox.client_secret)
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    form.locator("#element_workflow_id").fill("5a4db0c5-0000-4000-8000-000000000001")
    form.get_by_label("Timeout (s)", exact=True).fill("12")


def test_the_test_button_works_for_a_connection_of_the_form(page: Page, airflow: WholeAirflow) -> None:
    with FacekiSandbox() as sandbox:
        form = open_form(page, "faceki_with_port_0")
        form.locator("input[name=port]").fill("0")
        fill(form, sandbox)
        form.get_by_role("button", name="Save").click()
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="faceki_with_port_0"))
        row.get_by_role("button", name="Test Connection").click()
        expect(page.get_by_text("Test Connection Successful")).to_be_visible()
        assert sandbox.counters.tokens_issued == 1


def test_a_choice_that_is_masked_survives_an_edit(page: Page, shared_airflow: SharedAirflow) -> None:
    # Airflow's API returns a masked value for token_store, because the name contains "token".
    extra_fields = {"token_store": "memory", "timeout": 5, "auth_scheme": "Token"}
    connection = {
        "conn_type": "faceki",
        "login": "i",
        "password": "invented",
        "extra": json.dumps(extra_fields),
    }
    shared_airflow.api.call("POST", "connections", {"connection_id": "faceki_masked", **connection})
    page.reload()
    change_timeout(page, "5", "faceki_masked")
    expect(page.get_by_role("dialog")).to_have_count(0)
    # The form stores the number as text.
    (got,) = printed(shared_airflow.airflow, GET.format("faceki_masked"))
    (changed,) = json.loads(got)
    assert extra(changed) == extra_fields | {"timeout": "34"}


def change_timeout(page: Page, shown: str = "12", conn_id: str = CONN_ID) -> None:
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=conn_id))
    row.get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    expect(form.locator("input[name=password]")).not_to_have_value("sandbox-secret-made-up-for-loopback")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    timeout = form.get_by_label("Timeout (s)", exact=True)
    expect(timeout).to_have_value(shown)
    timeout.fill("34")
    form.get_by_role("button", name="Save").click()


@pytest.fixture(scope="module")
def empty_form(shared_airflow: SharedAirflow, logged_in: BrowserContext) -> Locator:
    """The form of a new Connection. Tests only read it, so they share it."""
    page = logged_in.new_page()
    page.goto(f"{shared_airflow.api.url}/connections")
    return open_form(page)


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        pytest.param("input[name=port][placeholder*='type 0']", True, id="port, for the Test button"),
        pytest.param("input[name=schema]", False, id="schema hidden"),
        pytest.param("input[name=host][placeholder*='sdk.faceki.com']", True, id="placeholder"),
        pytest.param("input[name=password][type=password]", True, id="secret masked"),
        pytest.param("#element_pii_hash_secret[type=password]", True, id="hash key masked"),
        pytest.param("#element_webhook_token[type=password]", True, id="webhook token masked"),
    ],
)
def test_the_form_shows_what_is_needed_and_hides_the_rest(
    empty_form: Locator, field: str, shown: bool
) -> None:
    assert empty_form.locator(field).count() == (1 if shown else 0)


def test_every_field_of_our_own_has_a_label_and_help(empty_form: Locator) -> None:
    empty_form.get_by_role("button", name="Extra Fields", exact=True).click()
    for label in ("Token request", "Upload timeout (s)", "Attempts", "Longest wait (s)", "Token store"):
        expect(empty_form.get_by_text(label, exact=True).first).to_be_visible()
    assert empty_form.locator("[id$='helper-text']").count() >= 10

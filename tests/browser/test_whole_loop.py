# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A click on FACEKI's page in a browser starts the DAG that listens to webhooks. `make ui` tells a user to click so."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.airflow.shared import SharedAirflow
from tests.browser.conftest import log_in
from tests.webhook.stack import LISTENER, Stack, stack_of

pytestmark = pytest.mark.airflow

LINK_DAG = "example_faceki_kyc_link"


@pytest.fixture(scope="module")
def stack(shared_airflow: SharedAirflow) -> Stack:
    return stack_of(shared_airflow)


def test_from_a_dags_link_over_the_page_to_a_finished_run(stack: Stack, browser: BrowserContext) -> None:
    page = browser.new_page()
    log_in(page, f"{stack.url}/dags/{LINK_DAG}")
    trigger(page, "customer-in-a-browser")
    hosted = hosted_page_of_the_run(page)
    pressed = press(hosted, "ACCEPTED")
    expect(hosted.get_by_role("heading", name="Verification finished")).to_be_visible()
    stack.expect_whole_loop(stack.request_id("customer-in-a-browser"), "ACCEPTED", pressed)
    # The run that created the link does not use the webhook. It polls FACEKI itself, finds the decision and continues.
    ((run_id,),) = stack.rows("SELECT run_id FROM dag_run WHERE dag_id = ?", LINK_DAG)
    ended = "SELECT state FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')"
    stack.until("the link's own run to finish", lambda: bool(stack.rows(ended, run_id)))
    assert stack.tasks(run_id) == {
        **dict.fromkeys(("make_link", "send", "wait_for_decision", "choose", "welcome"), "success"),
        **dict.fromkeys(("decline", "ask_a_person"), "skipped"),
    }


def test_a_reviewer_decides_on_the_same_page(stack: Stack, browser: BrowserContext) -> None:
    hosted = browser.new_page()
    hosted.goto(stack.hosted_page("customer-reviewed"))
    pressed = press(hosted, "REVIEW")
    expect(hosted.get_by_role("heading", name="In review")).to_be_visible()
    request_id = stack.request_id("customer-reviewed")
    stack.expect_whole_loop(request_id, "REVIEW", pressed)
    first, _ = stack.run_of(LISTENER, request_id)
    pressed = press(hosted, "DECLINED")
    expect(hosted.get_by_role("heading", name="Verification finished")).to_be_visible()
    stack.until("a second run", lambda: stack.run_of(LISTENER, request_id)[0] != first)
    stack.expect_whole_loop(request_id, "DECLINED", pressed)


def trigger(page: Page, record_identifier: str) -> None:
    """Start the DAG with its trigger form. Only the identifier is changed."""
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.locator("#element_record_identifier").fill(record_identifier)
    form.get_by_role("button", name="Trigger", exact=True).click()


def hosted_page_of_the_run(page: Page) -> Page:
    """Open FACEKI's page with the button of the task, beginning at the page of the run (shown after a trigger)."""
    task = page.get_by_role("row").filter(has=page.get_by_role("link", name="make_link"))
    # Airflow's user interface loads the links of a task only once, when the page of the task is opened. So the task
    # must have succeeded before.
    expect(task).to_contain_text("Success")
    task.get_by_role("link", name="make_link").click()
    page.get_by_role("link", name="Details").click()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="FACEKI hosted page").click()
    return opened.value


def press(hosted: Page, decision: str) -> float:
    """Press a button. Return the time directly before, in seconds of ``time.monotonic()``."""
    pressed = time.monotonic()
    hosted.get_by_role("button", name=decision).click()
    return pressed

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A real browser, and a person who logs in to the shared Airflow with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from demo.browser import CHROMIUM_OPTIONS, TIMEOUT_MILLISECONDS
from tests.airflow.shared import PASSWORD, USER, SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow

expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest.fixture(scope="module")
def _browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def browser(_browser: Browser) -> Iterator[BrowserContext]:
    """A browser in which nobody is logged in yet. Its pages are high enough for a whole form.

    The tests of a file share it, because a new one would load and compile all scripts of Airflow again.
    """
    opened = _browser.new_context(viewport={"width": 1400, "height": 1600})
    opened.set_default_timeout(TIMEOUT_MILLISECONDS)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def airflow(shared_airflow: SharedAirflow) -> WholeAirflow:
    """The shared Airflow, whose API server answers."""
    shared_airflow.airflow.wait_until_ready()
    return shared_airflow.airflow


@pytest.fixture(scope="module")
def logged_in(
    shared_airflow: SharedAirflow, airflow: WholeAirflow, browser: BrowserContext
) -> BrowserContext:
    """The browser after a person has logged in to Airflow."""
    opened = browser.new_page()
    log_in(opened, f"{shared_airflow.api.url}/connections")
    expect(opened.get_by_role("button", name="Add Connection")).to_be_visible()
    opened.close()
    return browser


@pytest.fixture
def page(shared_airflow: SharedAirflow, logged_in: BrowserContext) -> Iterator[Page]:
    """Airflow's list of Connections."""
    opened = logged_in.new_page()
    opened.goto(f"{shared_airflow.api.url}/connections")
    yield opened
    opened.close()


def log_in(page: Page, url: str) -> None:
    """Open a page of Airflow in a browser in which nobody is logged in, and log in."""
    page.goto(url)
    page.locator("input[name=username]").fill(USER)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()

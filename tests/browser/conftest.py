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


@pytest.fixture
def browser(_browser: Browser) -> Iterator[BrowserContext]:
    """A browser without the cookies of other tests. Its pages are high enough for a whole form."""
    opened = _browser.new_context(viewport={"width": 1400, "height": 1600})
    opened.set_default_timeout(TIMEOUT_MILLISECONDS)
    yield opened
    opened.close()


@pytest.fixture
def airflow(shared_airflow: SharedAirflow) -> WholeAirflow:
    """The shared Airflow, whose API server answers."""
    shared_airflow.airflow.wait_until_ready()
    return shared_airflow.airflow


@pytest.fixture
def page(shared_airflow: SharedAirflow, airflow: WholeAirflow, browser: BrowserContext) -> Page:
    """Airflow's list of Connections."""
    opened = browser.new_page()
    log_in(opened, f"{shared_airflow.api.url}/connections")
    return opened


def log_in(page: Page, url: str) -> None:
    """Open a page of Airflow, and log in when Airflow asks for it."""
    page.goto(url)
    page.locator("input[name=username]").fill(USER)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()

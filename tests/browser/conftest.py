# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A real browser, and for the Connection form a real API server: it needs no more of Airflow."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.airflow_stack import Airflow, wait_for
from demo.browser import CHROMIUM_OPTIONS, TIMEOUT_MILLISECONDS
from demo.processes import Processes

expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest.fixture(scope="module")  # the next module has an Airflow of its own, and there may be two cores only
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An API server with a database of its own."""
    served = Airflow(tmp_path_factory.mktemp("airflow"))
    command = str(Path(sys.executable).parent / "airflow")
    subprocess.run(
        [command, "db", "migrate"], env=served.environment(), check=True, capture_output=True, timeout=900
    )
    with Processes(served.home) as processes:
        processes.start("api-server", [command, "api-server", "--workers", "1"], served.environment())
        wait_for("the API server", lambda: _answers(served), 240.0, processes)
        yield served


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    """A fresh one."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield opened
        opened.close()


@pytest.fixture
def page(airflow: Airflow, browser: Browser) -> Page:
    """Airflow's list of Connections."""
    opened = new_page(browser)
    opened.goto(f"{airflow.url}/connections")
    return opened


def new_page(browser: Browser) -> Page:
    """An empty page with a long timeout, high enough for a whole form."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1600})
    opened.set_default_timeout(TIMEOUT_MILLISECONDS)
    return opened


def _answers(served: Airflow) -> bool:
    try:
        with urllib.request.urlopen(f"{served.url}/api/v2/monitor/health", timeout=60):  # noqa: S310 - loopback
            return True
    except OSError:
        return False

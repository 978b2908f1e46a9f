# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The command `make pictures`: take the screenshots of the documentation in a real Airflow with the sandbox.

Chromium shows the pages of Airflow and of the sandbox. The screenshots are written to `docs/pictures`. All persons,
credentials and records in them are fictitious.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import ROOT, Airflow, AirflowRefused, fresh_directory, say, wait_for
from demo.browser import CHROMIUM_OPTIONS, find_chromium
from demo.examples import write_manifest
from demo.processes import Interrupted, Processes, ProcessFailed, interruptible
from demo.run_demo import LINK_DAG, tail
from demo.run_ui import BATCH_DAG, HUMAN_REVIEW_DAG, TO_REVIEW, prepare

PICTURES = ROOT / "docs" / "pictures"
MAX_PICTURE_BYTES = 150_000
MAX_COLORS = 256
#: Device pixels for one CSS pixel. With this value, a screenshot is sharp on a high-resolution screen and still small.
SCALE = 1.5
#: Margin in CSS pixels around a group of elements in a screenshot. A single element has no margin.
MARGIN = 8
#: The time limit for one step in the browser. It is generous, because the machine is possibly busy.
TIMEOUT_MILLISECONDS = 180_000
#: The time limit for the whole command. On an idle machine with two cores, it needs about two minutes.
MAX_SECONDS = 1_500
RUN_SECONDS = 400.0

#: The record identifiers of the batch whose log is shown in a screenshot. The sandbox derives the decision from the
#: first word of each identifier.
BATCH = (
    *(f"customer-{number}" for number in range(3001, 3041)),
    *(f"declined-{number}" for number in range(1, 5)),
    *(f"review-{number}" for number in range(1, 3)),
)


@dataclass(frozen=True, slots=True)
class Studio:
    """The running processes of Airflow and the sandbox, and the browser that shows their web pages."""

    airflow: Airflow
    faceki: SandboxProcess
    processes: Processes
    browser: Browser

    def open(self, url: str, width: int = 1280, height: int = 720, theme: str = "light") -> Page:
        """Open a page in a new window."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            device_scale_factor=SCALE,
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        page.goto(url, wait_until="domcontentloaded")
        return page

    def task_page(self, dag_id: str, run_id: str, task: str) -> str:
        """Return the URL of the page of a task instance."""
        return f"{self.airflow.url}/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task}"

    def wait_for_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Wait until a task instance is in a state."""

        def reached() -> bool:
            tasks = self.airflow.tasks(dag_id, run_id)
            return any(task["task_id"] == task_id and task["state"] == state for task in tasks)

        wait_for(f"{dag_id}.{task_id} to be {state}", reached, RUN_SECONDS, self.processes)


def take_pictures(studio: Studio) -> None:
    """Run the example DAGs, and take screenshots of Airflow and the hosted page at the right moments of the runs."""
    connection_form(studio)
    airflow = studio.airflow
    reviewed = airflow.trigger(HUMAN_REVIEW_DAG, {"record_identifier": TO_REVIEW})
    linked = airflow.trigger(LINK_DAG, {"record_identifier": "customer-1001"})
    studio.wait_for_state(LINK_DAG, linked, "wait_for_decision", "deferred")
    hosted = link_button(studio, linked)
    hosted_page(studio, hosted)
    studio.wait_for_state(HUMAN_REVIEW_DAG, reviewed, "ask_a_person", "awaiting_input")
    human_review(studio, reviewed)
    webhook_asset(studio)
    studio.wait_for_state(LINK_DAG, linked, "welcome", "success")
    graph(studio, linked, "light")
    graph(studio, linked, "dark")
    batch_log(studio)


def connection_form(studio: Studio) -> None:
    """Take screenshots of the form of a new Connection, with some fields filled in. The form is not saved."""
    page = studio.open(f"{studio.airflow.url}/connections", 1000, 1200)
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill("faceki_default")
    form.get_by_role("combobox").first.click()
    page.keyboard.type("FACEKI")
    page.keyboard.press("Enter")
    form.locator("input[name=login]").fill("client-id-of-your-company")
    form.locator("input[name=password]").fill("made-up-for-this-picture")
    form.locator("input[name=login]").focus()
    save(page, "connection-form", form)
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    form.locator("#element_workflow_id").fill("5a4db0c5-0000-4000-8000-000000000001")
    form.get_by_label("Timeout (s)", exact=True).fill("30")
    last = form.get_by_text("Longest wait (s)", exact=True)
    expect(last).to_be_visible()
    page.wait_for_timeout(500)  # The animation that unfolds the section must end first.
    save(page, "connection-form-extra", form, above=last)


def link_button(studio: Studio, run_id: str) -> str:
    """Take a screenshot of the button that opens the hosted page, on the page of the task that created the link.

    Return the URL of the hosted page.
    """
    page = studio.open(studio.task_page(LINK_DAG, run_id, "make_link") + "/details")
    button = page.get_by_role("link", name="FACEKI hosted page")
    expect(button).to_be_visible()
    save_panel(page, "link-button", page.get_by_text("Run ID", exact=True))
    return str(button.get_attribute("href"))


def hosted_page(studio: Studio, url: str) -> None:
    """Take a screenshot that shows the hosted page on a desktop and on a phone, side by side.

    After the page is captured, the button ACCEPTED on it is pressed.
    """
    shots = []
    for width, height in ((900, 844), (390, 844)):
        page = studio.open(url, width, height)
        expect(page.get_by_role("heading", name="Identity verification")).to_be_visible()
        shots.append(Image.open(io.BytesIO(page.screenshot(animations="disabled"))))
    page.get_by_role("button", name="ACCEPTED").click()
    expect(page.get_by_role("heading", name="Verification finished")).to_be_visible()
    gap = 24
    both = Image.new("RGB", (sum(shot.width for shot in shots) + gap, shots[0].height), "white")
    both.paste(shots[0], (0, 0))
    both.paste(shots[1], (shots[0].width + gap, 0))
    write("hosted-page", both)


def human_review(studio: Studio, run_id: str) -> None:
    """Take a screenshot of the page on which a user of Airflow decides about a person with the decision REVIEW."""
    url = studio.task_page(HUMAN_REVIEW_DAG, run_id, "ask_a_person") + "/required_actions"
    page = studio.open(url, 1300)
    decline = page.get_by_role("button", name="Decline")
    expect(decline).to_be_visible()
    save_panel(page, "human-review", decline)


def webhook_asset(studio: Studio) -> None:
    """Take a screenshot of the page of the webhook asset in Airflow, with its events and the runs that they started."""
    airflow = studio.airflow

    def has_started_a_run() -> bool:
        events = airflow.call("GET", "assets/events?order_by=-timestamp")["asset_events"]
        # Only events from webhooks are counted. An event from a webhook has no source DAG. The DAG that finds decisions
        # for which no webhook arrived also creates events, but these have a source DAG.
        return any(
            run["state"] == "success"
            for event in events
            if event["source_dag_id"] is None
            for run in event["created_dagruns"]
        )

    wait_for("a webhook to start a run", has_started_a_run, RUN_SECONDS, studio.processes)
    (asset,) = airflow.call("GET", "assets")["assets"]
    page = studio.open(f"{airflow.url}/assets/{asset['id']}", 1300, 640)
    expect(page.get_by_text("Triggered Dag Run").first).to_be_visible()
    handle = _box(page.locator(".resize-handle"))
    page.mouse.move(handle["x"] + 1, 300)
    page.mouse.down()
    page.mouse.move(700, 300, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Fit View").click()
    save(page, "webhook-asset", page.get_by_test_id("main-content"))


def graph(studio: Studio, run_id: str, theme: str) -> None:
    """Take a screenshot of the graph of a finished run, without the panels around it."""
    page = studio.open(f"{studio.airflow.url}/dags/{LINK_DAG}/runs/{quote(run_id)}", 1180, 700, theme)
    page.get_by_role("button", name="Show Graph").click()
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.get_by_role("button", name="Fit View").click()
    nodes = page.locator(".react-flow__node")
    expect(nodes).to_have_count(7)
    save(page, f"graph-{theme}", nodes)


def batch_log(studio: Studio) -> None:
    """Take a screenshot of the log of a task that processes a small batch. The batch is not divided (one shard)."""
    # Webhooks are switched off, because the webhook of each person would start a DAG run.
    studio.faceki.control.post("settings", webhook_mode="never")
    manifest = write_manifest(studio.processes.logs / "pictured", BATCH)
    conf = {"manifest": manifest, "output": manifest.rpartition("/")[0] + "/output", "shards": 1}
    run_id = studio.airflow.trigger(BATCH_DAG, conf)
    studio.wait_for_state(BATCH_DAG, run_id, "verify", "success")
    page = studio.open(studio.task_page(BATCH_DAG, run_id, "verify") + "/mapped/0", 1300)
    last = page.get_by_test_id("virtual-scroll-container").get_by_text("Post Execute").last
    expect(last).to_be_visible()
    save_panel(page, "batch-log", last)


def save_panel(page: Page, name: str, last: Locator) -> None:
    """Save a screenshot of the panel beside Airflow's grid.

    :param last: the last element that the screenshot contains. The screenshot ends below this element.
    """
    header, last_box = _box(page.get_by_test_id("header-card")), _box(last)
    # The margins are small, because the screenshot must not show parts of the next elements.
    left, right = header["x"] - 3, header["x"] + header["width"]
    top, bottom = header["y"] - 4, last_box["y"] + last_box["height"] + 8
    page.evaluate("document.activeElement.blur()")
    save_area(page, name, {"x": left, "y": top, "width": right - left, "height": bottom - top})


def save(page: Page, name: str, shown: Locator, above: Locator | None = None) -> None:
    """Save a screenshot of the part of a page that contains one or more elements.

    :param shown: the elements that the screenshot contains.
    :param above: if given, the screenshot ends above this element.
    """
    boxes = [_box(each) for each in shown.all()]
    left, top = (min(box[side] for box in boxes) for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    if above is not None:
        bottom = _box(above)["y"] - 4 * MARGIN
    margin = MARGIN if len(boxes) > 1 else 0
    area: FloatRect = {
        "x": left - margin,
        "y": top - margin,
        "width": right - left + 2 * margin,
        "height": bottom - top + 2 * margin,
    }
    save_area(page, name, area)


def save_area(page: Page, name: str, area: FloatRect) -> None:
    """Wait until all animations of a page have ended. Then save a screenshot of an area of the page."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(1_000)  # Tooltips fade out, and the graph moves to its final position.
    write(name, Image.open(io.BytesIO(page.screenshot(animations="disabled", clip=area))))


def write(name: str, picture: Image.Image) -> None:
    """Write a screenshot with at most `MAX_COLORS` colours, so that the file is small.

    :raises ValueError: if the file has more than `MAX_PICTURE_BYTES`.
    """
    path = PICTURES / f"{name}.png"
    few = picture.convert("RGB").quantize(MAX_COLORS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    say(f"{path.stat().st_size / 1000:6.0f} kB  {few.width} x {few.height}  {path.relative_to(ROOT)}")
    if path.stat().st_size > MAX_PICTURE_BYTES:
        raise ValueError(f"{path} has more than {MAX_PICTURE_BYTES} bytes; take less of the page")


def _box(element: Locator) -> FloatRect:
    found = element.bounding_box()
    if found is None:
        raise TimeoutError(f"{element} is not visible")
    return found


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise `TimeoutError` in the `with` block after `MAX_SECONDS`."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the pictures took more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, leave)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def work_through(work: Path, chromium: str) -> None:
    """Start all processes, take all screenshots of the documentation, and end all processes."""
    expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    with SandboxProcess() as faceki, Processes(work) as processes, sync_playwright() as playwright:
        say("Starting Airflow, the sandbox and Chromium ...")
        airflow = Airflow(work / "airflow")
        prepare(airflow, faceki, processes, work)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        try:
            take_pictures(Studio(airflow, faceki, processes, browser))
        finally:
            browser.close()


def main() -> int:
    chromium = find_chromium()
    if chromium is None:
        say("There is no Chromium. Set CHROMIUM, or run `make chromium` as root on Debian.")
        return 1
    work = fresh_directory("pictures")
    PICTURES.mkdir(exist_ok=True)
    try:
        with interruptible(), _time_limit():
            work_through(work, chromium)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except (ProcessFailed, AirflowRefused, TimeoutError, PlaywrightError, AssertionError) as error:
        say(f"\nThe last lines of Airflow's log:\n{tail(work / 'airflow.log')}\n\nFAILED\n  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the hosted page: its content, decisions with and without a browser, and its layout on a phone."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_TWO_DOCUMENTS
from tests.sandbox.conftest import Caller

pytestmark = pytest.mark.process


class Outline(HTMLParser):
    """The elements of a page that a screen reader reports: the language, the buttons, the inputs and the links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.buttons: list[str] = []
        self.inputs: list[str] = []
        self.language = ""
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "html":
            self.language = given["lang"] or ""
        elif tag == "button" and "value" in given:
            self.buttons.append(given["value"] or "")
        elif tag == "input":
            assert "label" in self.open, "an input without a label"
            self.inputs.append(given["name"] or "")
        elif tag == "a":
            self.links.append(given["href"] or "")
        if tag not in ("input", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass


def test_the_page_offers_every_decision(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    answer = anonymous("GET", f"/kycverify/{sandbox.create_link()}")
    page = Outline(answer.text)
    assert page.buttons == ["ACCEPTED", "DECLINED", "REVIEW"]
    assert page.inputs == ["selfie", "document_1_front", "document_1_back"]
    assert page.language == "en"
    assert "<script" not in answer.text
    assert "not FACEKI" in answer.text


def test_the_page_shows_the_case(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link("order-1 <b>", workflow_id=WORKFLOW_TWO_DOCUMENTS)
    page = anonymous("GET", f"/kycverify/{link}").text
    case = page[page.index('<dl id="case">') : page.index("</dl>")]
    for text in ("order-1 &lt;b&gt;", "ID Card, Passport", "never"):
        assert f"<dd>{text}</dd>" in case
    sandbox.decide(link, "REVIEW")
    assert case in anonymous("GET", f"/kycverify/{link}").text


def test_the_page_shows_the_outcome_of_uploaded_images(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    for identifier, outcome in (("declined-1", "DECLINED"), ("code-5004-a", "code 5004"), ("x", "ACCEPTED")):
        page = anonymous("GET", f"/kycverify/{sandbox.create_link(identifier)}").text
        assert f"The identifier of the case decides: {outcome}." in page


def test_the_page_sends_no_referrer(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    headers = anonymous("GET", f"/kycverify/{sandbox.create_link()}").headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("decision", ["ACCEPTED", "DECLINED", "REVIEW"])
def test_a_button_decides(sandbox: FacekiSandbox, call: Caller, decision: str) -> None:
    link = sandbox.create_link("order-1")
    answer = call("POST", f"/kycverify/{link}", data={"decision": decision})
    assert [each.status_code for each in answer.history] == [303]
    assert f'<strong id="decision">{decision}</strong>' in answer.text
    assert [each["decision"] for each in call.records(link=link).json()["result"]] == [decision]
    assert sandbox.ledger == {"order-1": 1}


def test_images_decide_by_the_identifier(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link("declined-1")
    files = {"selfie": ("me.jpg", b"face"), "document_1_front": ("id.jpg", b"")}
    assert "DECLINED" in call("POST", f"/kycverify/{link}", files=files).text
    found = call("POST", "/api/v3/kyc_verification/search-by-face", files={"selfie": ("x", b"face")}).json()
    assert [each["link"] for each in found["result"]] == [link]


def test_a_form_without_a_decision_is_rejected(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link()
    for data in ({"decision": "PERHAPS"}, {"x": "y"}):
        assert anonymous("POST", f"/kycverify/{link}", data=data).status_code == 422
    assert sandbox.bills == ()


def test_a_second_press_changes_nothing(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link("order-1")
    call("POST", f"/kycverify/{link}", data={"decision": "ACCEPTED"})
    again = call("POST", f"/kycverify/{link}", data={"decision": "DECLINED"})
    assert (again.status_code, "code 5009" in again.text) == (410, True)
    assert [each["decision"] for each in call.records(link=link).json()["result"]] == ["ACCEPTED"]
    assert sandbox.ledger == {"order-1": 1}


def test_a_link_for_several_shows_its_form_again(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.settings.link_limit = 2
    page = f"/kycverify/{sandbox.create_link('order-1')}"
    for decision in ("ACCEPTED", "DECLINED"):
        assert Outline(anonymous("GET", page).text).buttons == ["ACCEPTED", "DECLINED", "REVIEW"]
        assert decision in anonymous("POST", page, data={"decision": decision}).text
    assert Outline(anonymous("GET", page).text).buttons == []
    assert sandbox.ledger == {"order-1": 2}


def test_a_reviewer_decides_later(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link("order-1")
    reviewed = call("POST", f"/kycverify/{link}", data={"decision": "REVIEW"})
    assert Outline(reviewed.text).buttons == ["ACCEPTED", "DECLINED"]
    done = call("POST", f"/kycverify/{link}", data={"decision": "DECLINED"})
    assert '<strong id="decision">DECLINED</strong>' in done.text
    (record,) = call.records(link=link).json()["result"]
    assert (record["decision"], record["updateBy"]) == ("DECLINED", "reviewer@sandbox.example")
    assert sandbox.ledger == {"order-1": 1}


@pytest.mark.parametrize(("how", "status"), [("unknown", 404), ("expired", 410), ("used_up", 410)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_ended_link_has_a_page_with_its_state(
    sandbox: FacekiSandbox, anonymous: Caller, how: str, status: int, method: str
) -> None:
    link = "made-up"
    if how != "unknown":
        link = sandbox.create_link()
        sandbox.end_link(link, how)
    answer = anonymous(
        method, f"/kycverify/{link}", data={"decision": "ACCEPTED"} if method == "POST" else None
    )
    assert answer.status_code == status
    assert Outline(answer.text).buttons == []
    assert sandbox.bills == ()


def test_an_empty_wallet_has_a_page(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.settings.credit = 0
    answer = anonymous("POST", f"/kycverify/{sandbox.create_link()}", data={"decision": "ACCEPTED"})
    assert (answer.status_code, "code 5003" in answer.text) == (402, True)


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("https://shop.example/done?a=1&b=2", True),
        ("http://127.0.0.1:1/done", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("file:///etc/hostname", False),
        ("//shop.example", False),
        ("http://", False),
        ("http://[", False),
        ('https://shop.example/"><script>', True),
    ],
)
def test_the_page_redirects_only_to_web_addresses(
    sandbox: FacekiSandbox, anonymous: Caller, target: str, goes: bool
) -> None:
    link = sandbox.create_link(redirect_url=target)
    answer = anonymous("POST", f"/kycverify/{link}", data={"decision": "ACCEPTED"})
    assert Outline(answer.text).links == ([target] if goes else [])
    assert ("http-equiv" in answer.text) is goes
    assert "<script" not in answer.text
    assert "http-equiv" not in anonymous("GET", f"/kycverify/{link}").text, "only the first time"


def test_a_browser_shows_it(sandbox: FacekiSandbox, chromium: str, tmp_path: Path) -> None:
    link = sandbox.create_link()
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-proxy-server",
            f"--user-data-dir={tmp_path}",
            "--dump-dom",
            f"{sandbox.url}/kycverify/{link}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert Outline(done.stdout).buttons == ["ACCEPTED", "DECLINED", "REVIEW"], done.stderr


BUTTONS = """() => [...document.querySelectorAll("button[name=decision]")].map(button => {
    const style = getComputedStyle(button);
    return [button.innerText, style.backgroundColor, style.borderTopStyle];
})"""


@pytest.mark.parametrize("decided", [pytest.param(None, id="open"), pytest.param("REVIEW", id="in review")])
def test_it_fits_a_phone(sandbox: FacekiSandbox, chromium: str, decided: str | None) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the group `browser` is not installed")
    link = sandbox.create_link("customer-1001-with-a-long-identifier-that-has-to-wrap" * 2)
    if decided:
        sandbox.decide(link, decided)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--no-proxy-server"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(f"{sandbox.url}/kycverify/{link}")
        width = page.evaluate("() => document.documentElement.scrollWidth")
        buttons = page.evaluate(BUTTONS)
        browser.close()
    assert width == 390
    assert len(buttons) == (2 if decided else 3)
    for place in (0, 1):
        assert len({button[place] for button in buttons}) == len(buttons), (
            "they differ in words and in colour"
        )

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Can a person decide on the hosted page, with a browser or without, and never twice by accident?"""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.sandbox.conftest import Caller


class Outline(HTMLParser):
    """What a screen reader would find."""

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


def test_the_page_keeps_its_address_to_itself(sandbox: FacekiSandbox, anonymous: Caller) -> None:
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


def test_neither_button_nor_image_decides_nothing(sandbox: FacekiSandbox, anonymous: Caller) -> None:
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
def test_a_link_that_is_over_has_a_page_that_says_so(
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
def test_where_the_browser_goes_next(
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
        timeout=60,
        check=False,
    )
    assert Outline(done.stdout).buttons == ["ACCEPTED", "DECLINED", "REVIEW"], done.stderr

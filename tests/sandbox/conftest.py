# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures: one running sandbox for all tests, which is reset before each test, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.waiting import wait_until

RECORDS = "/api/v3/kyc_verification"


class Caller:
    """An HTTP client of the sandbox, which uses requests and no code of the provider.

    If the tests used the provider's client, a mistake in both the client and the sandbox would remain undetected.
    """

    def __init__(self, sandbox: FacekiSandbox) -> None:
        self._sandbox = sandbox
        self.session = requests.Session()
        self.session.trust_env = False
        self.timeout = 10.0

    def __call__(self, method: str, path: str, **more: Any) -> requests.Response:
        more.setdefault("timeout", self.timeout)
        return self.session.request(method, self._sandbox.url + path, **more)

    def log_in(self) -> Caller:
        """Request a token and send it with all following requests."""
        pair = {"clientId": self._sandbox.client_id, "clientSecret": self._sandbox.client_secret}
        answer = self("POST", "/auth/api/generate-token", json=pair)
        self.session.headers["Authorization"] = "Bearer " + answer.json()["data"]["access_token"]
        return self

    def verify(self, identifier: str = "", leaving_out: str = "", **more: Any) -> requests.Response:
        """Send the images of one person to a workflow that requires an identity card.

        :param identifier: the record identifier.
        :param leaving_out: the name of an image that is not sent. If empty, all images are sent.
        """
        return self("POST", RECORDS, **{**_form(identifier, leaving_out), **more})

    @contextmanager
    def verifying(self, identifier: str) -> Iterator[None]:
        """Send the images as `verify` does. At the end of the `with` block, disconnect without reading the answer."""
        request = requests.Request("POST", self._sandbox.url + RECORDS, **_form(identifier))
        prepared = self.session.prepare_request(request)
        line = http.client.HTTPConnection(self._sandbox.url.removeprefix("http://"), timeout=60)
        with closing(line):
            line.request("POST", RECORDS, prepared.body, dict(prepared.headers))
            yield

    def records(self, **filters: str) -> requests.Response:
        return self("GET", RECORDS, params=filters)


def _form(identifier: str, leaving_out: str = "") -> dict[str, Any]:
    """Return the form fields and images of a verification, as arguments of `requests`."""
    files = {"selfie": b"a face", "document_1_front": b"a front", "document_1_back": b"a back"}
    files.pop(leaving_out, None)
    fields = {"workflowId": DEFAULT_WORKFLOW, "record_identifier": identifier}
    return {"data": fields, "files": {name: (f"{name}.jpg", content) for name, content in files.items()}}


@pytest.fixture(scope="session")
def _running() -> Iterator[FacekiSandbox]:
    with FacekiSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running: FacekiSandbox) -> FacekiSandbox:
    _running.reset()
    return _running


@pytest.fixture
def anonymous(sandbox: FacekiSandbox) -> Iterator[Caller]:
    caller = Caller(sandbox)
    with caller.session:
        yield caller


@pytest.fixture
def call(anonymous: Caller) -> Caller:
    """Provide a client that sends a valid token."""
    return anonymous.log_in()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Provide a function that waits until a condition is true, with a generous deadline."""
    return wait_until

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Samples of FACEKI's answers, with the structure of its documentation and SDKs. All data is invented."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json

FOLDER = Path(__file__).parent / "samples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

REQUEST_ID = "3f6f2a52-7f0e-4c35-9d3b-0a8f4f1c2d71"
DECLINED_REQUEST_ID = "b8f1c7de-52c4-4b7a-8f39-6d1e0c9a7742"
LINK = "6e0d5f3c-91a7-4d0f-b8c2-5a4e3b2c1d00"
WORKFLOW = "d2a7c9f0-3b1e-4c8d-9e6f-112233445566"


def sample_bytes(name: str) -> bytes:
    """Return a sample as the bytes of a response body."""
    return (FOLDER / f"{name}.json").read_bytes()


def sample(name: str) -> Json:
    """Return a sample as a parsed JSON document."""
    document: Json = json.loads(sample_bytes(name))
    return document


def response(name: str, status: int = 200) -> HttpResponse:
    """Return a sample as an HTTP response."""
    return HttpResponse(status, {}, sample_bytes(name))

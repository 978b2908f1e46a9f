# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Multipart bodies contain the given fields and files, in the announced length, for images of any size."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.api.uploads import CHUNK_BYTES, Image, Multipart
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_THREE_DOCUMENTS
from airflow_provider_faceki.sandbox.form_reader import FormReader
from airflow_provider_faceki.sandbox.messages import Upload
from tests.billing.conftest import Connect
from tests.billing.image_files import HEIC, JPEG, PNG, WEBP, image_bytes, verification, write

pytestmark = pytest.mark.process

MEBI = 1024 * 1024


def image(content: bytes, kind: str = "image/jpeg", ending: str = "jpg") -> Image:
    return Image(lambda: io.BytesIO(content), len(content), kind, ending)


@given(
    fields=st.dictionaries(st.sampled_from(["workflowId", "record_identifier"]), st.text(max_size=50)),
    contents=st.lists(st.binary(min_size=1, max_size=300), max_size=3),
    boundary=st.text("0123456789abcdef", min_size=32, max_size=32),
)
def test_the_local_faceki_reads_what_was_given(
    fields: dict[str, str], contents: list[bytes], boundary: str
) -> None:
    images = tuple((f"document_{number}_front", image(content)) for number, content in enumerate(contents))
    body = Multipart(tuple(fields.items()), images, boundary)
    said = b"".join(body.chunks())
    assert body.length == len(said)
    form = FormReader(body.media_type)
    form.feed(said)
    form.end()
    uploads = {
        f"document_{number}_front": Upload(len(content), hashlib.sha256(content).hexdigest())
        for number, content in enumerate(contents)
    }
    assert form.parts == {**fields, **uploads}


def test_python_reads_what_was_given() -> None:
    kinds = [(JPEG, "jpg"), (PNG, "png"), (WEBP, "webp"), (HEIC, "heic")]
    contents = {
        f"document_{number}": image_bytes(CHUNK_BYTES * number + 7, first)
        for number, (first, _) in enumerate(kinds)
    }
    images = tuple((name, api.Image.of_bytes(name, content)) for name, content in contents.items())
    body = Multipart((("workflowId", "w-1"), ("record_identifier", 'Zoë "7" \\ %0D')), images, "b" * 32)
    said = message_from_bytes(
        b"Content-Type: " + body.media_type.encode() + b"\r\n\r\n" + b"".join(body.chunks())
    )
    parts = said.get_payload()
    assert isinstance(parts, list)
    told = [part.get_param("name", header="content-disposition") for part in parts]  # type: ignore[union-attr]
    assert told == ["workflowId", "record_identifier", *contents]
    content = [part.get_payload(decode=True) for part in parts]  # type: ignore[union-attr]
    assert content == [b"w-1", 'Zoë "7" \\ %0D'.encode(), *contents.values()]
    # The file name on the disk is possibly the name of a person, so the field name is sent instead.
    names = [part.get_filename() for part in parts[2:]]  # type: ignore[union-attr]
    assert names == [f"document_{number}.{ending}" for number, (_, ending) in enumerate(kinds)]
    assert [part.get_content_type() for part in parts[2:]] == [  # type: ignore[union-attr]
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/heic",
    ]


def test_the_multipart_body_to_the_byte() -> None:
    body = Multipart((("workflowId", "w"),), (("selfie", image(b"xyz")),), "BOUNDARY")
    assert b"".join(body.chunks()) == (
        b'--BOUNDARY\r\nContent-Disposition: form-data; name="workflowId"\r\n\r\nw\r\n'
        b'--BOUNDARY\r\nContent-Disposition: form-data; name="selfie"; filename="selfie.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\nxyz\r\n--BOUNDARY--\r\n"
    )
    assert body.media_type == "multipart/form-data; boundary=BOUNDARY"


def test_it_can_be_read_as_often_as_it_is_sent() -> None:
    body = Multipart((), (("selfie", image(image_bytes(200_000))),), "b")
    assert b"".join(body.chunks()) == b"".join(body.chunks())
    assert max(map(len, body.chunks())) < CHUNK_BYTES + 1024


def test_every_request_draws_its_own_boundary() -> None:
    call = verification("a", "w")
    bodies = [call.request().body for _ in range(2)]
    assert all(isinstance(body, Multipart) for body in bodies)
    assert len({body.boundary for body in bodies if isinstance(body, Multipart)}) == 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_parts_of_a_verification(number: int) -> None:
    front, back = (api.Image.of_bytes(name, image_bytes()) for name in ("front", "back"))
    documents = [api.Document(front, back), api.Document(front), api.Document(front, back)][:number]
    body = verification("mine", "flow", documents=documents).request().body
    assert isinstance(body, Multipart)
    named = [
        "selfie",
        "document_1_front",
        "document_1_back",
        "document_2_front",
        "document_3_front",
        "document_3_back",
    ]
    assert [name for name, _ in body.files] == named[: {1: 3, 2: 4, 3: 6}[number]]
    assert body.fields == (("workflowId", "flow"), ("record_identifier", "mine"))


@pytest.fixture
def seven_images(tmp_path: Path) -> Iterator[list[Image]]:
    """Seven files of 5 MiB."""
    made = []
    for number in range(7):
        uri = write(tmp_path, f"{number}.jpg", image_bytes(5 * MEBI, seed=number))
        made.append(storage.image(f"image {number}", uri, 10 * MEBI))
    return made  # type: ignore[return-value]


def test_memory_stays_flat(
    sandbox_process: SandboxProcess, connect: Connect, seven_images: list[Image]
) -> None:
    sandbox_process.control.post("reset")
    connect(sandbox_process, upload_timeout=60)
    hook = FacekiHook()
    hook.call(verification("accepted-0", WORKFLOW_THREE_DOCUMENTS, documents=_three(seven_images)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call = verification(
            "accepted-1", WORKFLOW_THREE_DOCUMENTS, selfie=seven_images[0], documents=_three(seven_images)
        )
        assert hook.call(call).decision is api.Decision.ACCEPTED
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - before < MEBI, f"{(most - before) / 1024:.0f} KiB"


def test_the_body_is_sent_in_large_chunks(seven_images: list[Image]) -> None:
    body = Multipart((), tuple((f"p{number}", each) for number, each in enumerate(seven_images)), "b")
    pieces = list(map(len, body.chunks()))
    assert sum(pieces) == body.length > 35 * MEBI
    assert len(pieces) <= body.length / CHUNK_BYTES + 1


def _three(contents: list[Image]) -> list[api.Document]:
    return [api.Document(*contents[number : number + 2]) for number in (1, 3, 5)]

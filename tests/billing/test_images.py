# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Images that are refused before anything is sent, or while they are sent, are not billed."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.api.uploads import MAX_IMAGE_BYTES
from airflow_provider_faceki.connection.schema import SPECS
from airflow_provider_faceki.hooks import workflow_rules
from airflow_provider_faceki.hooks.documents import load_documents
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.images import FacekiCheckImageOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import (
    DEFAULT_WORKFLOW,
    WORKFLOW_ANY_ONE,
    WORKFLOW_PASSPORT,
    WORKFLOW_THREE_DOCUMENTS,
    WORKFLOW_TWO_DOCUMENTS,
)
from airflow_provider_faceki.storage import attach
from tests.airflow.fakes import execute
from tests.billing.conftest import Connect, Verify
from tests.billing.image_files import HEIC, JPEG, PNG, WEBP, image_bytes, verification, write
from tests.billing.tries import FileStateStore
from tests.forks import exit_code, fork

LIMIT = 20_000


@pytest.fixture
def store(tmp_path: Path) -> FileStateStore:
    """Airflow's task state store. These tests are not repeated without a store; other modules test that case."""
    return FileStateStore(tmp_path / "store.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(None, "selfie: cannot read '.*': No such file", id="missing"),
        pytest.param(b"", "selfie is empty", id="empty"),
        pytest.param(b"GIF89a" + bytes(100), "selfie is not an image of a kind that is recognised", id="GIF"),
        pytest.param(b"%PDF-1.7 and so on", "selfie is not an image", id="PDF"),
        pytest.param(b"\xff\xd8", "selfie is not an image", id="two bytes"),
        pytest.param(b"\x00\x00\x00\x18ftypmp42" + bytes(50), "selfie is not an image", id="film"),
        pytest.param(
            image_bytes(LIMIT + 1),
            f"selfie has 20001 bytes, more than max_image_bytes={LIMIT}.*413",
            id="large",
        ),
    ],
)
def test_refused_before_any_request(
    sandbox: FacekiSandbox, connect: Connect, verify: Verify, tmp_path: Path, content: bytes | None, told: str
) -> None:
    connect(sandbox, max_image_bytes=LIMIT)
    place = tmp_path / "odd.jpg"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(AirflowFailException, match=f"^(ValidationError|StorageFileNotFoundError): {told}"):
        verify("accepted-1", selfie=place.as_uri()).go()
    assert sandbox.counters.requests == {}


@pytest.mark.parametrize("name", ["there.jpg", "missing.jpg", "text.txt"])
def test_an_image_outside_the_allowed_folders(sandbox: FacekiSandbox, tmp_path: Path, name: str) -> None:
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "there.jpg")
        (tmp_path / folder / "text.txt").write_text("no image")
    allowed = [str(tmp_path / "in")]
    inside = f"{tmp_path}/in/there.jpg"
    assert execute(FacekiCheckImageOperator(task_id="t", image=inside, allowed_image_prefixes=allowed))
    sent = sandbox.counters.total
    outside = f"{tmp_path}/out/{name}"
    with pytest.raises(AirflowFailException) as caught:
        execute(FacekiCheckImageOperator(task_id="t", image=outside, allowed_image_prefixes=allowed))
    # The error is the same for each file, so it does not show whether the file exists.
    refused = f"the image is in none of the task's allowed_image_prefixes ({allowed[0]!r})"
    assert str(caught.value) == f"NotAllowedError: image: {refused} ({outside!r})"
    assert sandbox.counters.total == sent


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        pytest.param([], "one to three documents, not 0", id="none"),
        pytest.param(["{0}"] * 4, "one to three documents, not 4", id="four"),
        pytest.param("{0}", "a list of documents, not str", id="a URI instead of a list"),
        pytest.param({"front": "{0}"}, "a list of documents, not dict", id="a mapping instead of a list"),
        pytest.param([{"back": "{0}"}], r"documents\[0\] must be an image, or", id="no front"),
        pytest.param(
            [{"front": "{0}", "rear": "{0}"}], r"documents\[0\] must be an image, or", id="a third side"
        ),
        pytest.param(["{0}", 7], r"documents\[1\] must be an image, or", id="a number"),
        pytest.param(
            [{"front": "{0}", "back": "/no/such"}], r"documents\[0\] back: cannot read", id="no such back"
        ),
    ],
)
def test_documents_of_the_wrong_shape(
    sandbox: FacekiSandbox, verify: Verify, images: dict[str, Any], documents: Any, told: str
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        return images["selfie"] if value == "{0}" else value

    with pytest.raises(AirflowFailException, match=f"(ValidationError|StorageFileNotFoundError): .*{told}"):
        verify("accepted-1", documents=filled(documents)).go()
    assert sandbox.counters.requests == {}


class NAType:
    """A null value like ``pandas.NA``: ``bool()`` raises an error for it."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


NO_VALUES = [
    pytest.param(value, id=name)
    for name, value in {
        "None": None,
        "nothing": "",
        "text None": "None",
        "text null": "null",
        "text nan": "nan",
        "text undefined": "undefined",
        "NaN": math.nan,
        "decimal NaN": Decimal("nan"),
        "NA of pandas": NAType(),
    }.items()
]


def load_nothing(name: str, source: object) -> api.Image:
    raise AssertionError(f"{name} was read from {source!r}")


@pytest.mark.parametrize("value", NO_VALUES)
def test_a_back_that_means_no_value_is_not_given(value: object) -> None:
    image = api.Image.of_bytes("front", image_bytes())

    def load(name: str, source: object) -> api.Image:
        return image if source == "/front.jpg" else load_nothing(name, source)

    assert load_documents(load, [{"front": "/front.jpg", "back": value}]) == [api.Document(image, None)]


@pytest.mark.parametrize("value", [*NO_VALUES, pytest.param({"uri": "/front.jpg"}, id="mapping")])
@pytest.mark.parametrize("sides", ["front alone", "front with a back", "no mapping"])
def test_a_front_that_means_no_value_is_refused(value: object, sides: str) -> None:
    document = {"front alone": {"front": value}, "front with a back": {"front": value, "back": "/b.jpg"}}
    with pytest.raises(api.ValidationError, match=r"documents\[0\] must be an image, or"):
        load_documents(load_nothing, [document.get(sides, value)])


WITH_BACK, WITHOUT = {"front": True, "back": True}, {"front": True}


@pytest.mark.parametrize(
    ("workflow", "documents", "told"),
    [
        pytest.param(DEFAULT_WORKFLOW, [WITHOUT], "without a back side", id="identity card without its back"),
        pytest.param(WORKFLOW_TWO_DOCUMENTS, [WITH_BACK], r"requires 2 document\(s\)", id="one of two"),
        pytest.param(
            WORKFLOW_TWO_DOCUMENTS, [WITHOUT, WITHOUT], "without a back side", id="only one is a passport"
        ),
        pytest.param(
            WORKFLOW_THREE_DOCUMENTS, [WITH_BACK, WITHOUT], r"requires 3 document\(s\)", id="two of three"
        ),
    ],
)
def test_documents_that_the_workflow_cannot_work_with(
    sandbox: FacekiSandbox, verify: Verify, images: dict[str, Any], workflow: str, documents: Any, told: str
) -> None:
    given = [dict.fromkeys(sides, images["selfie"]) for sides in documents]
    with pytest.raises(AirflowFailException, match=f"ValidationError: .*{told}"):
        verify("accepted-1", documents=given, workflow_id=workflow).go()
    assert "verify" not in sandbox.counters.requests
    assert sandbox.bills == ()


@pytest.mark.parametrize(
    ("workflow", "documents"),
    [
        pytest.param(WORKFLOW_PASSPORT, [WITHOUT], id="passport"),
        pytest.param(WORKFLOW_ANY_ONE, [WITHOUT], id="a passport may be chosen"),
        pytest.param(WORKFLOW_ANY_ONE, [WITH_BACK], id="something else is chosen"),
        pytest.param(WORKFLOW_TWO_DOCUMENTS, [WITHOUT, WITH_BACK], id="two, in any order"),
        pytest.param(WORKFLOW_THREE_DOCUMENTS, [WITH_BACK, WITH_BACK, WITHOUT], id="three"),
    ],
)
def test_accepted_documents_of_a_workflow(
    sandbox: FacekiSandbox, verify: Verify, images: dict[str, Any], workflow: str, documents: Any
) -> None:
    given = [dict.fromkeys(sides, images["selfie"]) for sides in documents]
    assert verify("accepted-1", documents=given, workflow_id=workflow).go()["decision"] == "ACCEPTED"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 404}, id="HTTP 404"),
        pytest.param({"kind": "code", "code": 1, "count": None}, id="a route that FACEKI does not know"),
        pytest.param({"kind": "truncated"}, id="an unreadable answer"),
        pytest.param({"kind": "status", "status": 500, "count": None}, id="a failure"),
    ],
)
def test_rules_that_cannot_be_fetched_do_not_stop_a_verification(
    sandbox: FacekiSandbox, verify: Verify, fault: dict[str, Any]
) -> None:
    sandbox.add_fault(**fault, route="rules")
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_rules_are_asked_for_once(sandbox: FacekiSandbox, verify: Verify) -> None:
    for number in range(3):
        verify(f"accepted-{number}").go()
    assert sandbox.counters.requests["rules"] == 1
    verify("accepted-x", check_rules=False, workflow_id=WORKFLOW_PASSPORT).go()
    assert sandbox.counters.requests["rules"] == 1


def test_rules_are_asked_for_once_by_many_at_once(sandbox: FacekiSandbox) -> None:
    sandbox.settings.latency = 0.1
    hooks = [FacekiHook() for _ in range(8)]
    with ThreadPoolExecutor(len(hooks)) as threads:
        found = list(threads.map(lambda hook: hook.workflow_rules(DEFAULT_WORKFLOW), hooks))
    assert len({id(rules) for rules in found}) == 1
    assert sandbox.counters.requests["rules"] == 1
    # A process is possibly forked while a thread holds the lock. This thread does not exist in the child, so the child
    # would wait for the lock without end. Therefore the child must begin without locks.
    with workflow_rules._locks[next(iter(workflow_rules._locks))]:
        child = fork(lambda: not workflow_rules._locks)
    assert exit_code(child) == 0


@pytest.mark.parametrize(
    ("first", "kind"),
    [(JPEG, "image/jpeg"), (PNG, "image/png"), (WEBP, "image/webp"), (HEIC, "image/heic")],
    ids=["JPEG", "PNG", "WEBP", "HEIC"],
)
def test_the_image_type_is_detected_from_the_content(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path, first: bytes, kind: str
) -> None:
    content = image_bytes(5000, first)
    assert api.Image.of_bytes("selfie", content).media_type == kind
    # The file name has no influence on the detected type.
    selfie = write(tmp_path, "selfie.txt", content)
    assert verify("accepted-1", selfie=selfie).go()["decision"] == "ACCEPTED"


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty in-memory storage, which Airflow's object storage can use."""
    storage = fsspec.filesystem("memory")
    attach("memory", fs=storage)
    yield storage
    storage.store.clear()


def test_from_another_storage(sandbox: FacekiSandbox, verify: Verify, memory: Any) -> None:
    memory.pipe_file("/people/selfie", image_bytes(seed=7))
    memory.pipe_file("/people/card", image_bytes(seed=8))
    card = {"front": "memory://people/card", "back": "memory://people/card"}
    task = verify("accepted-1", selfie="memory://people/selfie", documents=[card])
    assert task.go()["decision"] == "ACCEPTED"
    # The sandbox finds a face by the bytes of the image, so this match proves that the image arrived unchanged.
    assert len(FacekiHook().call(api.FaceMatch(api.Image.of_bytes("selfie", image_bytes(seed=7))))) == 1


class Opened:
    """An image with different content each time it is opened: first for the check, then for sending."""

    def __init__(self, *contents: bytes | Exception) -> None:
        self.contents = list(contents)

    def __call__(self) -> BinaryIO:
        content = self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)


class FailingHalfway(io.BytesIO):
    def __init__(self, problem: Exception) -> None:
        super().__init__(image_bytes(300_000))
        self.problem = problem

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 100_000:
            raise self.problem
        return super().read(size)


class StorageError(Exception):
    """Error of a storage that does not derive its errors from OSError."""


def sent(opener: Callable[[], BinaryIO], size: int) -> api.PerformKycVerification:
    selfie = api.Image.checked("selfie", opener, size, MAX_IMAGE_BYTES)
    return verification("accepted-1", DEFAULT_WORKFLOW, selfie=selfie, lookup_timeout=30.0)


@pytest.mark.parametrize(
    ("then", "told"),
    [
        pytest.param(image_bytes(200_000), "selfie became shorter while it was sent", id="shorter"),
        pytest.param(image_bytes(300_001), "selfie became longer while it was sent", id="longer"),
        pytest.param(b"", "selfie became shorter", id="nothing left"),
        pytest.param(FileNotFoundError("gone"), "selfie could not be read to its end", id="gone"),
        pytest.param(
            StorageError("secret"), "selfie could not be read to its end", id="an error of the storage's own"
        ),
    ],
)
def test_changed_while_it_is_sent(hook: FacekiHook, sandbox: FacekiSandbox, then: Any, told: str) -> None:
    with pytest.raises(api.ValidationError, match=told) as caught:
        hook.call(sent(Opened(image_bytes(300_000), then), 300_000))
    assert not caught.value.is_ambiguous
    assert "secret" not in str(caught.value)
    assert sandbox.bills == ()


@pytest.mark.parametrize(
    "problem",
    [
        OSError("the network share is gone"),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        StorageError("of its own"),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_storage_that_fails_halfway(hook: FacekiHook, sandbox: FacekiSandbox, problem: Exception) -> None:
    opened: list[BinaryIO] = [io.BytesIO(image_bytes(300_000)), FailingHalfway(problem)]
    with pytest.raises(api.ValidationError, match="selfie could not be read to its end"):
        hook.call(sent(lambda: opened.pop(0), 300_000))
    assert sandbox.bills == ()
    # The HTTP connection with the incomplete body is not used again, so the next call succeeds.
    assert hook.call(verification("accepted-2", DEFAULT_WORKFLOW)).decision is api.Decision.ACCEPTED


def test_an_interrupted_image_read_allows_another_try(
    sandbox: FacekiSandbox,
    verify: Verify,
    store: FileStateStore,
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory.pipe_file("/people/selfie", image_bytes(300_000))
    really, openings = memory.open, itertools.count(1)

    def flaky(*where: Any, **how: Any) -> BinaryIO:
        # The image is opened first for the check and then for sending. Only the second opening fails.
        return FailingHalfway(OSError("gone")) if next(openings) == 2 else really(*where, **how)

    monkeypatch.setattr(memory, "open", flaky)
    task = verify("accepted-1", selfie="memory://people/selfie", resubmit_after=0.1)
    with pytest.raises(AirflowException, match="selfie could not be read to its end") as caught:
        task.go()
    assert not isinstance(caught.value, AirflowFailException)
    assert not store.has_intent
    assert sandbox.bills == ()
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        pytest.param({"selfie": "a.jpg"}, "selfie must be an Image", id="a path"),
        pytest.param({"selfie": b"bytes"}, "selfie must be an Image", id="bytes"),
        pytest.param(
            {"documents": ["a.jpg"]}, r"documents\[0\] must be a Document, not str", id="documents of paths"
        ),
        pytest.param({"documents": "a.jpg"}, "documents must be a list", id="no list"),
        pytest.param({"documents": None}, "documents must be a list", id="nothing"),
        pytest.param({"documents": []}, "one to three documents", id="no documents"),
        pytest.param({"record_identifier": ""}, "record_identifier is empty", id="no identifier"),
        pytest.param({"record_identifier": "a\nb"}, "record_identifier must be printable", id="a line break"),
        pytest.param({"workflow_id": None}, "workflow_id is empty", id="no workflow"),
        pytest.param(
            {"lookup_timeout": "60"}, "lookup_timeout must be a number of seconds", id="a text for a time"
        ),
        pytest.param(
            {"lookup_timeout": float("nan")}, "lookup_timeout must be a number of seconds", id="not a number"
        ),
    ],
)
def test_invalid_verification_arguments_are_rejected(more: dict[str, Any], told: str) -> None:
    arguments: dict[str, Any] = {"record_identifier": "a", "workflow_id": "w", **more}
    with pytest.raises(api.ValidationError, match=told):
        verification(**arguments)


@pytest.mark.parametrize("endpoint", [api.FaceMatch, api.AnalyzeFace, api.CheckImage])
def test_other_image_endpoints_reject_a_path(endpoint: Any) -> None:
    with pytest.raises(api.ValidationError, match="must be an Image"):
        endpoint("a.jpg")


def test_an_image_for_another_operator(sandbox: FacekiSandbox, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="image is empty"):
        execute(FacekiCheckImageOperator(task_id="check", image=write(tmp_path, "empty.jpg", b"")))
    assert sandbox.counters.requests == {}


@pytest.mark.parametrize("stored", [True, False], ids=["from a storage", "as bytes"])
def test_the_hook_s_images_keep_to_the_connection_s_limit(
    sandbox: FacekiSandbox, connect: Connect, tmp_path: Path, stored: bool
) -> None:
    def given(size: int) -> Any:
        return write(tmp_path, f"{size}.jpg", image_bytes(size)) if stored else image_bytes(size)

    connect(sandbox, max_image_bytes=500)
    with pytest.raises(api.ValidationError, match="selfie has 1009 bytes.*connection 'faceki_default'"):
        FacekiHook().image(given(1009), name="selfie")
    with pytest.raises(api.ValidationError, match="image is empty"):
        FacekiHook().image(given(0))
    connect(sandbox, max_image_bytes=20 * 1024 * 1024)
    large = MAX_IMAGE_BYTES + 2_000_000
    hook = FacekiHook()
    found = hook.image(given(large))
    assert (found.size, found.media_type) == (large, "image/jpeg")
    assert hook.call(api.AnalyzeFace(found)).gender


def test_one_default_for_the_limit() -> None:
    assert SPECS["max_image_bytes"].default == MAX_IMAGE_BYTES
    with pytest.raises(api.ValidationError, match="more than max_image_bytes=10485760"):
        api.Image.of_bytes("selfie", image_bytes(MAX_IMAGE_BYTES + 1))


def test_reprs_show_no_image() -> None:
    assert repr(api.Image.of_bytes("selfie", image_bytes(100))) == "<Image image/jpeg, 100 bytes>"
    assert repr(verification("mine", "workflow")) == "<PerformKycVerification with 1 document(s)>"

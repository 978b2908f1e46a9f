# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""An image that cannot be read is an error of its row or of the storage. The name of the image is never shown."""

from __future__ import annotations

import json
import logging
import re
from contextlib import nullcontext

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api, storage_interface
from airflow_provider_faceki.batch import error_guard
from airflow_provider_faceki.operators import batch, images
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.canaries import files_below
from tests.batch.harness import BatchHarness, names, once
from tests.batch.stores import FlakyStore, StoreDown, attached
from tests.billing.image_files import image_bytes

#: A readable image in the same storage. Without a readable image, the batch would treat the storage as down.
GOOD = "flaky://bucket/good.jpg"
#: A person's name that is used as the name of an image.
PERSON = "quirinazze-zzyzxdottir"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.0,))


def unreadable_image(error: Exception) -> tuple[FlakyStore, str]:
    """Return a store, and the URI of an image that the store does not deliver."""

    def fails(operation: str, path: str) -> None:
        if PERSON in path:
            raise error

    store = attached()
    store.pipe_file(f"/bucket/{PERSON}.jpg", image_bytes())
    store.pipe_file("/bucket/good.jpg", image_bytes())
    store.fails = fails
    return store, f"flaky://bucket/{PERSON}.jpg"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(OSError(5, PERSON), "selfie cannot be read now: Input/output error", id="EIO"),
        pytest.param(StoreDown(PERSON), "selfie cannot be read now: StoreDown", id="the store's own"),
    ],
)
def test_an_unreadable_image_is_an_error_of_its_row(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    _, uri = unreadable_image(error)
    manifest = harness.manifest(
        [harness.line("bad", selfie=uri), *(harness.line(name, selfie=GOOD) for name in names(3))]
    )
    with caplog.at_level(logging.INFO):
        done = harness.verify(manifest)
    assert done["decisions"] == {"ACCEPTED": 3}
    (line,) = harness.lines("errors")
    assert (line["record_identifier"], line["problem"]) == ("bad", told)
    assert line["code"] == "STORAGE"
    left = b"".join(content for _, content in files_below(harness.out)).decode()
    assert PERSON not in left + caplog.text + "".join(capsys.readouterr())


def test_an_invalid_uri_beside_an_unreadable_image_is_a_row_error(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    _, uri = unreadable_image(OSError(5, "archived"))
    bad = harness.line("bad", selfie="s3://[x/selfie.jpg") | {"document_1_front": uri}
    good = [harness.line(name, selfie=GOOD) for name in names(3)]
    done = harness.verify(harness.manifest([bad, *good]))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 3}, {"STORAGE": 1})


def test_many_unreadable_images_at_the_start_do_not_stop_the_batch(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_guard, "FAILURES_BEFORE_DOWN", 10)
    _, uri = unreadable_image(OSError(5, "archived"))
    dead = [harness.line(f"dead-{number}", selfie=uri) for number in range(90)]
    done = harness.verify(harness.manifest([*dead, *(harness.line(name, selfie=GOOD) for name in names(20))]))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 20}, {"STORAGE": 90})
    assert faceki.ledger == once(names(20))


def test_a_storage_that_fails_for_all_images_leaves_rows_open(
    faceki: FacekiSandbox, harness: BatchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    store, uri = unreadable_image(OSError(5, PERSON))
    manifest = harness.manifest(harness.line(name, selfie=uri) for name in names(60))
    with pytest.raises(api.OutcomeUnknownError, match="60 of 60 rows could not be finished") as caught:
        harness.verify(manifest)
    assert PERSON not in str(caught.value) + caplog.text
    assert harness.lines("errors") == []
    store.fails = lambda operation, path: None
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 60}


def test_an_unexpected_image_error_before_sending_is_a_row_error(
    faceki: FacekiSandbox, harness: BatchHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = images.load_image

    def odd(hook: object, name: str, uri: str, *more: object) -> object:
        if "odd" in uri:
            raise LookupError(uri)
        return load(hook, name, harness.selfie if uri.startswith("s3:") else uri, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "load_image", odd)
    done = harness.verify(
        harness.manifest(
            [
                harness.line("bad", selfie="s3://bucket/odd.jpg"),
                *(harness.line(name, selfie="s3://bucket/good.jpg") for name in names(5)),
            ]
        )
    )
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 5}, {"STORAGE": 1})
    assert harness.lines("errors")[0]["problem"] == "selfie cannot be read now: LookupError"


def test_a_connection_for_all_images_that_is_not_there_is_no_rows_fault(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    with pytest.raises(AirflowFailException, match="image_conn_id: there is no Connection 'nobodys'"):
        harness.verify(harness.everybody("a"), image_conn_id="nobodys")
    assert harness.parts("errors") == []
    assert harness.verify(harness.everybody("a"))["decisions"] == {"ACCEPTED": 1}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PermissionError(PERSON), id="refused"),
        pytest.param(ConnectionError(PERSON), id="not reached"),
        pytest.param(TimeoutError(PERSON), id="silent"),
        pytest.param(StoreDown(PERSON), id="an error of its own"),
    ],
)
def test_a_storage_that_fails_alike_for_all_rows_ends_the_try_soon_and_leaves_the_rows_open(
    faceki: FacekiSandbox, harness: BatchHarness, error: Exception
) -> None:
    store, uri = unreadable_image(error)
    manifest = harness.manifest(harness.line(name, selfie=uri) for name in names(200))
    with pytest.raises(OSError, match=r"the storage of the images failed for \d+ consecutive rows") as caught:
        harness.verify(manifest)
    assert PERSON not in str(caught.value)
    assert "200 of 200 rows are left" in str(caught.value)
    assert (harness.lines("errors"), faceki.ledger) == ([], {})
    store.fails = lambda operation, path: None
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 200}
    assert faceki.ledger == once(names(200))


def test_credentials_that_expire_within_a_batch_leave_the_rest_open(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    store, _ = unreadable_image(OSError(5))
    opened = 0

    def expired(operation: str, path: str) -> None:
        nonlocal opened
        opened += operation == "open"
        if operation in {"open", "info"} and opened > 60:
            raise PermissionError("expired")

    store.fails = expired
    manifest = harness.manifest(harness.line(name, selfie=GOOD) for name in names(40))
    with pytest.raises(api.OutcomeUnknownError, match=r"\d+ of 40 rows could not be finished"):
        harness.verify(manifest, concurrency=2)
    assert 0 < len(harness.results()) < 40
    assert harness.lines("errors") == []
    store.fails = lambda operation, path: None
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 40}
    assert faceki.ledger == once(names(40))


def test_one_image_whose_access_is_refused_leaves_its_row_open(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    _, uri = unreadable_image(PermissionError(PERSON))
    lines = [harness.line("bad", selfie=uri), *(harness.line(name, selfie=GOOD) for name in names(3))]
    with pytest.raises(api.OutcomeUnknownError, match="1 of 4 rows could not be finished") as caught:
        harness.verify(harness.manifest(lines))
    assert PERSON not in str(caught.value)
    assert (set(harness.results()), harness.lines("errors")) == (set(names(3)), [])


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        pytest.param({}, {"by name": "ACCEPTED"}, id="this folder"),
        pytest.param({"allowed_image_prefixes": None}, {}, id="no local file"),
        pytest.param({"allowed_image_prefixes": ["/nowhere"]}, {}, id="another folder"),
        pytest.param({"allowed_image_prefixes": ["s3://kyc"]}, {}, id="a bucket"),
    ],
)
def test_a_manifest_names_only_images_that_the_task_allows(
    faceki: FacekiSandbox, harness: BatchHarness, allowed: dict[str, object], expected: dict[str, str]
) -> None:
    manifest = harness.manifest(
        [
            harness.line("by name"),
            harness.line("of the host", selfie="/etc/passwd"),
            harness.line("not there", selfie="/etc/none"),
            harness.line("of another team", selfie="s3://aws_prod_admin@hr-bucket/scan.jpg"),
        ]
    )
    fails = pytest.raises(AirflowFailException, match="no row succeeded")
    with nullcontext() if expected else fails:
        harness.verify(manifest, **allowed)
    assert harness.results() == expected
    problems = {line["record_identifier"]: str(line["problem"]) for line in harness.lines("errors")}
    assert all(re.search(r"allowed_image_(prefixes|conn_ids)", problem) for problem in problems.values())
    # The error does not show which file exists.
    assert problems["of the host"] == problems["not there"]
    assert "admin" not in json.dumps(harness.lines("errors"))
    assert faceki.ledger == once(expected)


@pytest.mark.parametrize("allowed", ["/data", ["data"], [], [7], {"s3://kyc": 1}])
def test_invalid_allowed_image_prefixes_are_rejected(
    faceki: FacekiSandbox, harness: BatchHarness, allowed: object
) -> None:
    with pytest.raises(AirflowFailException, match="allowed"):
        harness.verify(harness.everybody("a"), allowed_image_prefixes=allowed)
    assert faceki.ledger == {}

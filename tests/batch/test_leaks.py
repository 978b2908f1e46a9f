# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The files, logs and XComs of a batch contain no personal data."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from PIL import Image

from airflow_provider_faceki import api, storage_interface
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.canaries import NOWHERE, PERSON, files_below
from tests.batch.harness import BatchHarness, Line
from tests.batch.stores import attached
from tests.billing.image_files import image_bytes, write

NAME = "-".join(PERSON.values())


def rows_with_every_error(harness: BatchHarness) -> list[Line | str | bytes]:
    """Return rows whose images are named after a person."""
    folder = harness.folder / NAME
    folder.mkdir()
    painted = io.BytesIO()
    Image.new("RGB", (100, 80)).save(painted, "JPEG")
    for name in ("front.jpg", "back.jpg"):
        write(harness.folder, name, painted.getvalue())
    good, text, empty = (
        write(folder, f"{NAME}-{number}.jpg", content)
        for number, content in enumerate([painted.getvalue(), b"no image", b""])
    )
    store = attached()
    store.pipe_file(f"/bucket/{NAME}.jpg", image_bytes())
    store.pipe_file("/bucket/good.jpg", painted.getvalue())

    def fails(operation: str, path: str) -> None:
        if NAME in path:
            raise OSError(5, path)

    store.fails = fails
    selfies = {
        "good": good,
        "text": text,
        "empty": empty,
        "missing": f"{folder.as_uri()}/none.jpg",
        "folder": folder.as_uri(),
        "relative": f"{NAME}.jpg",
        "relative-folder": f"{NAME}/{NAME}.jpg",
        "half": f"file://{NAME}.jpg",
        "scheme": f"gopher://{NAME}/{NAME}.jpg",
        "connection": f"flaky://nobodys@bucket/{NAME}.jpg",
        "quotes": f'/{NAME}\'s "image"/{NAME}.jpg',
        "password": f"ftp://me:{NAME}@127.0.0.1:9/{NAME}.jpg",
        "query": f"http://127.0.0.1:9/{NAME}.jpg?{NAME}",
        # A storage that delivers no image at all is treated as down, so one row has a readable image.
        "alive": "flaky://bucket/good.jpg",
        "dead": f"flaky://bucket/{NAME}.jpg",
        "long": f"/{NAME * 20}.jpg",
    }
    rows = [harness.line(name, selfie=selfie) for name, selfie in selfies.items()]
    rows += [
        harness.line(name, selfie=good) for name in ("accepted-1", "declined-2", "code-5004-3", "code-5006-4")
    ]
    return [*rows, {"selfie": good}, harness.line("list", selfie=[good]), f'{{"selfie": "{NAME}'.encode()]


@pytest.mark.parametrize("resize_to", [None, 64])
def test_a_batch_leaks_no_personal_data(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    resize_to: int | None,
) -> None:
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.0,))
    faceki.settings.person = PERSON
    faceki.add_fault("process_then_reset", route="verify", record_identifier="accepted-1")
    manifest = harness.manifest(rows_with_every_error(harness))
    with caplog.at_level(logging.INFO):
        done = harness.verify(manifest, resize_to=resize_to)
    printed = "".join(capsys.readouterr()) + caplog.text
    left = {**dict(files_below(harness.out)), "log": printed.encode(), "XCom": json.dumps(done).encode()}
    found = {name: NOWHERE.found_in(content) for name, content in left.items()}
    assert {name: names for name, names in found.items() if names} == {}
    assert {part.split("/out/")[1].split("/")[0] for part in left if "/out/" in part} == {
        "results",
        "errors",
        "_journal",
    }
    # This proves that the search works: the canaries are found if full records are requested.
    harness.verify(manifest, include_records=True, resize_to=resize_to)
    records = b"".join(content for name, content in files_below(harness.out / "records"))
    assert set(PERSON) <= NOWHERE.found_in(records)


def test_a_batch_with_unreadable_images_leaks_no_personal_data(
    faceki: FacekiSandbox,
    harness: BatchHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(storage_interface, "RETRY_PAUSES_SECONDS", (0.0,))
    rows = rows_with_every_error(harness)
    dead = [row for row in rows if isinstance(row, dict) and row.get("record_identifier") == "dead"]
    with pytest.raises(api.OutcomeUnknownError) as caught:
        harness.verify(harness.manifest(dead))
    assert NOWHERE.found_in(f"{caught.value!r} {caplog.text}".encode()) == set()


def test_a_manifest_without_a_header_leaks_no_personal_data(
    faceki: FacekiSandbox, harness: BatchHarness, tmp_path: Path
) -> None:
    place = harness.folder / "people.csv"
    place.write_text(f"{NAME},{harness.selfie},{harness.front}\n")
    for go in (harness.verify, lambda uri: harness.fetch(manifest=uri)):
        with pytest.raises(AirflowFailException) as caught:
            go(place.as_uri())
        assert NOWHERE.found_in(str(caught.value).encode()) == set()

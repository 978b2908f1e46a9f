# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Create the inputs of the example DAGs: a Connection, images, a manifest, and folders for the output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess

# The content begins with the signature of a JPEG file. This is sufficient, because the sandbox does not decode images.
IMAGE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(64) + bytes.fromhex("ffd9")


#: Two records that the example DAGs fetch: each record identifier and its decision. `make ui` adds the records to the
#: sandbox.
KNOWN = {"customer-1001": "ACCEPTED", "customer-1002": "DECLINED"}
#: The record identifiers in the manifest for the batch example.
BATCH = ("customer-2001", "customer-2002", "customer-2003")


def connection_to(faceki: SandboxProcess) -> dict[str, Any]:
    """Return a Connection to the sandbox with all settings that the examples need."""
    settings: Any = faceki.control.get("settings")
    return dict(faceki.connection(pdf_report_path=settings["pdf_path"]))


def example_places(work: Path) -> dict[str, str]:
    """Create the input files of the examples, and return environment variables that contain the URIs of all folders."""
    images = work / "images"
    _write_images(images)
    batches = work / "batches"
    write_manifest(batches, BATCH)
    for identifier in KNOWN:
        _new(work / "open" / identifier).touch()
    return {
        "FACEKI_EXAMPLE_IMAGES": images.as_uri(),
        "FACEKI_EXAMPLE_RECORDS": (work / "records").as_uri(),
        "FACEKI_EXAMPLE_REPORTS": (work / "reports").as_uri(),
        "FACEKI_EXAMPLE_BATCHES": batches.as_uri(),
        "FACEKI_EXAMPLE_OPEN": (work / "open").as_uri(),
    }


def write_manifest(folder: Path, identifiers: Iterable[str]) -> str:
    """Write a manifest and the images that it names, and return the URI of the manifest."""
    with _new(folder / "manifest.ndjson").open("w") as manifest:
        for identifier in identifiers:
            row = {"record_identifier": identifier, **_write_images(folder / "images" / identifier)}
            manifest.write(json.dumps(row) + "\n")
    return (folder / "manifest.ndjson").as_uri()


def _write_images(folder: Path) -> dict[str, str]:
    """Write the three images of a person, and return their URIs by the name of the manifest column."""
    columns = {"selfie": "selfie.jpg", "document_1_front": "front.jpg", "document_1_back": "back.jpg"}
    for name in columns.values():
        # Each image has different content, as real images have.
        _new(folder / name).write_bytes(IMAGE + str(folder / name).encode())
    return {column: (folder / name).as_uri() for column, name in columns.items()}


def _new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def kept(work: Path) -> list[str]:
    """Return how many records and reports the examples have written, as texts such as ``3 records``."""
    kinds = {"records": sorted(work.glob("records/**/*.json")), "reports": sorted(work.glob("reports/*.pdf"))}
    return [f"{len(files)} {kind}" for kind, files in kinds.items()]

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Manifests, their images, and the output of a batch, for one test."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.operators.batch import (
    FacekiBatchFetchRecordsOperator,
    FacekiBatchVerificationOperator,
)
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import Workflow
from tests.airflow.fakes import context
from tests.billing.image_files import write

#: Content of a manifest row, with fictional data.
Line = dict[str, object]


class BatchHarness:
    """The files of one test: images, manifests, and the folder ``out`` to which a batch writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.selfie, self.front, self.back = (
            write(folder, f"{name}.jpg") for name in ("selfie", "front", "back")
        )

    def line(self, identifier: object, **more: object) -> Line:
        """Return a row that can be verified, unless ``more`` changes it."""
        made = {
            "record_identifier": identifier,
            "selfie": self.selfie,
            "document_1_front": self.front,
            "document_1_back": self.back,
            **more,
        }
        return {name: value for name, value in made.items() if value is not None}

    def manifest(self, lines: Iterable[Line | str | bytes], name: str = "people.ndjson") -> str:
        """Write a manifest and return its URI; strings and bytes are written as unchanged lines."""
        place = self.folder / name
        with place.open("wb") as file:
            for line in lines:
                text = json.dumps(line) if isinstance(line, dict) else line
                file.write((text.encode() if isinstance(text, str) else text) + b"\n")
        return place.as_uri()

    def everybody(self, *identifiers: object) -> str:
        """Write a manifest of these identifiers, with rows that can be verified, and return its URI."""
        return self.manifest(self.line(identifier) for identifier in identifiers)

    def batch(self, manifest: str, **arguments: Any) -> FacekiBatchVerificationOperator:
        """Return the operator, with short timeouts."""
        given = {
            "output_path": self.out.as_uri(),
            "resubmit_after": 1.0,
            "lookup_timeout": 1.0,
            "allowed_image_prefixes": [str(self.folder), "flaky://bucket", "s3://kyc"],
            **arguments,
        }
        return FacekiBatchVerificationOperator(task_id="verify", manifest=manifest, **given)

    def verify(self, manifest: str, **arguments: Any) -> dict[str, Any]:
        """Run one try of the batch."""
        return self.batch(manifest, **arguments).execute(context())

    def fetch(self, **arguments: Any) -> dict[str, Any]:
        """Run one try that fetches records into ``out``."""
        given = {"output_path": self.out.as_uri(), **arguments}
        operator: Any = FacekiBatchFetchRecordsOperator(task_id="fetch", **given)
        found: dict[str, Any] = operator.execute(context())
        return found

    def lines(self, folder: str) -> list[dict[str, Any]]:
        """Return all lines of all parts below a folder of ``out``."""
        return [json.loads(line) for part in self.parts(folder) for line in part.read_text().splitlines()]

    def parts(self, folder: str) -> list[Path]:
        """Return all parts below a folder of ``out``."""
        return sorted(path for path in (self.out / folder).rglob("*") if path.is_file())

    def results(self) -> dict[str, str]:
        """Return the decisions by identifier; each identifier must occur only once."""
        found = [line["record_identifier"] for line in self.lines("results")]
        assert [name for name, count in Counter(found).items() if count > 1] == []
        return {line["record_identifier"]: line["decision"] for line in self.lines("results")}

    def errors(self) -> dict[int, str]:
        """Return the error codes by row number; each row must occur only once."""
        rows = [line["row"] for line in self.lines("errors")]
        assert len(rows) == len(set(rows))
        return {line["row"]: line["code"] for line in self.lines("errors")}


def once(identifiers: Iterable[str]) -> Mapping[str, int]:
    """Return the ledger in which each of these identifiers was billed once."""
    return dict.fromkeys(identifiers, 1)


def names(count: int) -> list[str]:
    """Return identifiers of people who will be accepted."""
    return [f"accepted-{number}" for number in range(count)]


def begin(harness: BatchHarness, *identifiers: str, at: float | None = None) -> None:
    """Write intents, which are journal lines that announce that these rows will be sent.

    A try leaves intents without results if it is killed between the announcement and the sending.
    """
    folder = harness.out / "_journal" / "intents"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"record_identifier": name, "at": time.time() if at is None else at} for name in identifiers]
    part = folder / f"part-20260101T000000-{len(list(folder.iterdir())):08d}-000000.ndjson"
    part.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def keep_no_records(faceki: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make FACEKI's workflows store no records, and make their rules report it."""
    rules = Workflow.rules
    monkeypatch.setattr(Workflow, "rules", lambda *given: {**rules(*given), "store_data": False})
    faceki.add_fault("code", route="records", code=8013, count=None)

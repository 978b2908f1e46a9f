# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What the example DAGs need: a Connection, pictures to send, a manifest, places to write to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess

# Begins as a JPEG does; the local FACEKI looks no further.
PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000") + bytes(64) + bytes.fromhex("ffd9")


def connection_to(faceki: SandboxProcess) -> dict[str, Any]:
    """A Connection to the local FACEKI that lacks nothing an example asks for."""
    settings: Any = faceki.control.get("settings")
    return dict(faceki.connection(pdf_report_path=settings["pdf_path"]))


def example_places(work: Path) -> dict[str, str]:
    """The environment variables by which the examples are told where to read and write."""
    pictures = work / "pictures"
    pictures.mkdir()
    for number, name in enumerate(("selfie.jpg", "front.jpg", "back.jpg")):
        # No two alike, as with real ones.
        (pictures / name).write_bytes(PICTURE + bytes([number]))
    return {
        "FACEKI_EXAMPLE_PICTURES": pictures.as_uri(),
        "FACEKI_EXAMPLE_RECORDS": (work / "records").as_uri(),
        "FACEKI_EXAMPLE_REPORTS": (work / "reports").as_uri(),
    }


def kept(work: Path) -> list[str]:
    """What the examples wrote there, by kind."""
    kinds = {"records": sorted(work.glob("records/**/*.json")), "reports": sorted(work.glob("reports/*.pdf"))}
    return [f"{len(files)} {kind}" for kind, files in kinds.items()]

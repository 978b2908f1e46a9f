# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What may manifests and tables be, and what are a manifest's columns called? Known while a DAG is parsed."""

from __future__ import annotations

MANIFEST_FORMATS = ("ndjson", "csv", "parquet")
TABLE_FORMATS = ("ndjson", "parquet")

#: What a manifest's columns are called unless the caller says otherwise.
COLUMNS = (
    "record_identifier",
    "workflow_id",
    "selfie",
    *(f"document_{number}_{side}" for number in (1, 2, 3) for side in ("front", "back")),
)
#: Those without which nobody can be verified.
REQUIRED = ("record_identifier", "selfie", "document_1_front")

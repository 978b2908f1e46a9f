# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Column names of a manifest, and names of the file formats.

A manifest is a file with one row for each person. The batch operators check these names when a DAG is parsed. Parsing
must be fast. Therefore the names are in this module, so that the operators do not have to import the larger modules
that read and write the files.
"""

from __future__ import annotations

MANIFEST_FORMATS = ("ndjson", "csv", "parquet")
#: Names of the columns of a manifest. If a file uses other names, the operator's parameter ``columns`` maps them.
COLUMNS = (
    "record_identifier",
    "workflow_id",
    "selfie",
    *(f"document_{number}_{side}" for number in (1, 2, 3) for side in ("front", "back")),
)
#: Columns that are required to verify a row.
REQUIRED_COLUMNS = ("record_identifier", "selfie", "document_1_front")
TABLE_FORMATS = ("ndjson", "parquet")

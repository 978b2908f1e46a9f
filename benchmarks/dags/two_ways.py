# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Two DAGs that verify the same persons: one DAG with a single batch task, one with a mapped task for each person."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

CONN_ID = "benchmark_faceki"
FOLDER = Path(os.environ["BENCHMARK_FOLDER"])
MANIFEST = FOLDER / "people.ndjson"
PEOPLE = [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()]

with DAG("one_task", schedule=None, start_date=timezone.datetime(2026, 1, 1), catchup=False):
    FacekiBatchVerificationOperator(
        task_id="verify",
        faceki_conn_id=CONN_ID,
        manifest=str(MANIFEST),
        output_path=str(FOLDER / "out"),
        allowed_image_prefixes=[str(FOLDER)],
    )

with DAG("mapped_tasks", schedule=None, start_date=timezone.datetime(2026, 1, 1), catchup=False):
    FacekiKycVerificationOperator.partial(task_id="verify", faceki_conn_id=CONN_ID).expand_kwargs(
        [
            {
                "record_identifier": person["record_identifier"],
                "selfie": person["selfie"],
                "documents": [{"front": person["document_1_front"], "back": person["document_1_back"]}],
            }
            for person in PEOPLE
        ]
    )

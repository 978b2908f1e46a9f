# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### A hundred thousand people, on as many workers as there are

A manifest is split into shards, one task verifies each, and the counts are added up. Each person is billed once,
however often this DAG runs: a shard that fails or is killed goes on where it was, a further run goes on with the same
`output` and verifies only the rows that are new in the manifest, and a person whom FACEKI has already verified under
the row's identifier is found there and not paid for again.

The manifest has one row for each person with `record_identifier`, `selfie`, `document_1_front`, `document_1_back`. Give
each batch an `output` folder of its own. Only images in the folder `images` are read; by default, that is
the manifest's folder.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from tempfile import gettempdir
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.batch import COLUMNS, FacekiBatchVerificationOperator

#: Any storage that Airflow knows: s3://…, gs://…, abfs://…, or a directory.
BATCHES = os.environ.get("FACEKI_EXAMPLE_BATCHES", f"file://{gettempdir()}/faceki_batches")

with DAG(
    dag_id="example_faceki_batch",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    # Two runs on one output would take turns: the newer one stops the older one.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    params={
        "manifest": Param(f"{BATCHES}/manifest.ndjson", type="string", description="URI of the manifest"),
        "output": Param(
            f"{BATCHES}/output",
            type="string",
            description="URI of a folder for what comes of this batch; it goes on there when it is started again",
        ),
        "images": Param(
            "",
            # The trigger form takes a string for a required one, and does not let it be empty.
            type=["null", "string"],
            description="URI of the folder that images may be read from. Empty: the manifest's folder",
        ),
        "shards": Param(8, type="integer", minimum=1, maximum=256, description="Tasks that share the work"),
    },
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:

    @task
    def split_manifest(params: dict[str, str]) -> list[dict[str, str]]:
        """Split the manifest, and give each shard an output folder and a batch id that further runs go on with."""
        from airflow_provider_faceki.batch.shards import split

        columns = {name: name for name in COLUMNS}
        shards = split(params["manifest"], f"{params['output']}/shards", int(params["shards"]), columns)
        names = [f"{number:03d}-of-{len(shards):03d}" for number in range(1, len(shards) + 1)]
        return [
            {
                "manifest": shard,
                "output_path": f"{params['output']}/{name}",
                "batch_id": f"example_faceki_batch {name}",
            }
            for name, shard in zip(names, shards, strict=True)
        ]

    verify = FacekiBatchVerificationOperator.partial(
        task_id="verify",
        concurrency=16,
        max_active_tis_per_dagrun=8,
        # A manifest must not choose among all files that a worker can read.
        allowed_image_prefixes=["{{ params.images or params.manifest.rpartition('/')[0] }}"],
    ).expand_kwargs(split_manifest())

    @task
    def add_up(shards: list[dict[str, Any]]) -> dict[str, Any]:
        """Add up the counts of the shards."""
        decisions, errors = Counter[str](), Counter[str]()
        for shard in shards:
            decisions.update(shard["decisions"])
            errors.update(shard["errors"])
        found = sum(shard["found"] for shard in shards)
        return {"decisions": dict(decisions), "errors": dict(errors), "found": found}

    add_up(verify.output)

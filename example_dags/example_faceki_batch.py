# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Verify a large batch of people in parallel

The DAG splits a manifest into shards. One mapped task verifies the people of each shard. The last task adds up how many
people have each decision or error.

Each person is billed only once, even if this DAG runs several times:

- If the task of a shard fails or is killed, its next try verifies only the rows that have no result yet.
- A further run with the same `output` verifies only the rows that are new in the manifest.
- If FACEKI already has a record with the identifier of a row, the task uses this record and does not pay again.

The manifest has one row for each person, with the columns `record_identifier`, `selfie`, `document_1_front` and
`document_1_back`. Use a separate `output` folder for each batch. The tasks read only images in the folder `images`,
which by default is the folder of the manifest.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from tempfile import gettempdir
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.batch import COLUMNS, FacekiBatchVerificationOperator

#: The URI of the folder for the manifest, the images and the output. It can be in any storage that Airflow supports,
#: for example s3://…, gs://…, abfs://… or file://….
BATCHES = os.environ.get("FACEKI_EXAMPLE_BATCHES", f"file://{gettempdir()}/faceki_batches")

with DAG(
    dag_id="example_faceki_batch",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    # Two simultaneous runs with the same output would disturb each other, because the newer run stops the older run.
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
            # Airflow's form for starting a DAG run shows a field for this parameter. With the type "string" alone, the
            # form would refuse an empty field.
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
        """Split the manifest into shards, and return the arguments of one task for each shard.

        The output folder and the batch id of a shard are the same in each run, so that a further run can continue.
        """
        from airflow_provider_faceki.batch.manifest import split

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
        # Only images in this folder are sent. Otherwise the author of a manifest could make a worker send any file that
        # the worker can read.
        allowed_image_prefixes=["{{ params.images or params.manifest.rpartition('/')[0] }}"],
    ).expand_kwargs(split_manifest())

    @task
    def add_up(shards: list[dict[str, Any]]) -> dict[str, Any]:
        """Return, for all shards together, how many people have each decision or error.

        The number `found` counts the people who already had a record, and who were therefore not billed again.
        """
        decisions, errors = Counter[str](), Counter[str]()
        for shard in shards:
            decisions.update(shard["decisions"])
            errors.update(shard["errors"])
        found = sum(shard["found"] for shard in shards)
        return {"decisions": dict(decisions), "errors": dict(errors), "found": found}

    add_up(verify.output)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### A hundred thousand people, on as many workers as there are

A manifest is cut into shards, one task verifies each, and the counts are joined. Each person is billed once: a
shard that fails or is killed goes on where it was, and the others do not notice.

The manifest has a row a person with `record_identifier`, `selfie`, `document_1_front`, `document_1_back`. Use
identifiers and an `output` folder of this batch's own. Only images in the folder `images` are read; by default, that is
the manifest's folder.
"""

from __future__ import annotations

import os
from datetime import timedelta
from tempfile import gettempdir

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.batch import COLUMNS, FacekiBatchVerificationOperator

#: Any storage that Airflow knows: s3://…, gs://…, abfs://…, or a directory.
BATCHES = os.environ.get("FACEKI_EXAMPLE_BATCHES", f"file://{gettempdir()}/faceki_batches")

with DAG(
    dag_id="example_faceki_batch",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
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
    def cut(params: dict[str, str]) -> list[dict[str, str]]:
        """Cut the manifest, and give each shard a folder for what comes of it."""
        from airflow_provider_faceki.batch.shards import split

        columns = {name: name for name in COLUMNS}
        shards = split(params["manifest"], f"{params['output']}/shards", int(params["shards"]), columns)
        return [
            {"manifest": shard, "output_path": f"{params['output']}/{number:03d}"}
            for number, shard in enumerate(shards, 1)
        ]

    verify = FacekiBatchVerificationOperator.partial(
        task_id="verify",
        concurrency=16,
        max_active_tis_per_dagrun=8,
        # Whoever writes a manifest must not choose among all files that a worker can read.
        allowed_image_prefixes=["{{ params.images or params.manifest.rpartition('/')[0] }}"],
    ).expand_kwargs(cut())

    @task
    def join(shards: list[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
        """Add up the counts of the shards."""
        joined: dict[str, dict[str, int]] = {"decisions": {}, "errors": {}}
        for shard in shards:
            for kind, counts in joined.items():
                for name, count in shard[kind].items():
                    counts[name] = counts.get(name, 0) + count
        return joined

    join(verify.output)

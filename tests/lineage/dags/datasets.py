# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG whose tasks read and write datasets in an object store. The last task exceeds the limit of charged calls."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG, Asset, task, timezone

from airflow_provider_faceki.operators.batch import (
    COLUMNS,
    FacekiBatchFetchRecordsOperator,
    FacekiBatchVerificationOperator,
)
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

CONN_ID, LIMITED_CONN_ID = "faceki_lineage", "faceki_limited"
# These values are constants and not in the run's conf, because Airflow's own lineage events contain the conf.
STORE = "s3://aws_kyc@kyc"
IMAGES = os.environ.get("LINEAGE_FOLDER", "file:///nowhere")
SELFIE, FRONT = f"{IMAGES}/selfie.jpg", f"{IMAGES}/front.jpg"
#: Identifier of a person whom the sandbox accepts. It contains the person's name, so that a test can search for the
#: name.
PERSON = "accepted-canariella-leckwasser"

with DAG("datasets", schedule=None, start_date=timezone.datetime(2026, 1, 1), catchup=False) as dag:

    @task
    def split_manifest() -> int:
        from airflow_provider_faceki.batch.manifest import split

        return len(split(f"{STORE}/people.ndjson", f"{STORE}/shards", 2, {name: name for name in COLUMNS}))

    verify = FacekiBatchVerificationOperator(
        task_id="verify",
        faceki_conn_id=CONN_ID,
        manifest=f"{STORE}/people.ndjson",
        output_path=f"{STORE}/verified",
        allowed_image_prefixes=[IMAGES],
        lookup_timeout=2.0,
        outlets=[Asset("s3://kyc/verified")],
    )
    tables = FacekiBatchFetchRecordsOperator(
        task_id="tables",
        faceki_conn_id=CONN_ID,
        manifest=f"{STORE}/people.ndjson",
        output_path=f"{STORE}/tables",
        outlets=[Asset("s3://kyc/tables")],
    )
    one = FacekiKycVerificationOperator(
        task_id="one",
        faceki_conn_id=CONN_ID,
        record_identifier=PERSON,
        selfie=SELFIE,
        documents=[{"front": FRONT, "back": FRONT}],
        output_path=f"{STORE}/records/{PERSON}/record.json",
    )
    fetch = FacekiFetchRecordsOperator(
        task_id="fetch",
        faceki_conn_id=CONN_ID,
        record_identifier=PERSON,
        output_path=f"{STORE}/fetched/{PERSON}.json",
    )

    @task
    def too_many() -> None:
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        hook = FacekiHook(LIMITED_CONN_ID)
        for _ in range(3):
            hook.analyze_face(SELFIE)

    split_manifest() >> verify >> tables >> one >> fetch >> too_many()

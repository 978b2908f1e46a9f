# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with each operator that sends images, fetches a report, branches, or processes a manifest, for the leak tests.

Like `every_path`, it contains paths that succeed and paths that fail. `tests/airflow/given.py` creates the images and
manifests.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.operators.batch import (
    FacekiBatchFetchRecordsOperator,
    FacekiBatchVerificationOperator,
)
from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.operators.images import (
    FacekiAnalyzeFaceOperator,
    FacekiCheckImageOperator,
    FacekiFaceMatchOperator,
)
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

# On a busy machine, the task state store responds slowly. By default a charged call is not sent then, because another
# execution possibly sends it. In this DAG no second execution exists, so a slow store is accepted.
charged_call._MAX_WRITE_SECONDS = 600.0

GIVEN = os.environ.get("EVERY_PATH_GIVEN", "file:///tmp/every-path-given")
OUTPUT = os.environ.get("EVERY_PATH_OUTPUT", "file:///tmp/every-path")
#: Identifiers of verifications, by task. For some identifiers, a scenario of the sandbox determines the outcome.
VERIFIED = {
    "accepted": "accepted-image",
    "refused_image": "code-5004-image",
    "review": "review-image",
    "reviewed": "reviewed",
    "answer_lost": "answer_lost",
    "reduced": "accepted-reduced",
    "declined_fails": "declined-image",
    "outcome_unknown": "outcome_unknown",
    "wallet_empty": "wallet_empty",
    "no_image": "no_image",
    "not_reduced": "not_reduced",
}
#: Faults that the sandbox applies to a verification, by identifier.
VERIFY_FAULTS: dict[str, dict[str, Any]] = {
    "answer_lost": {"kind": "process_then_reset"},
    "outcome_unknown": {"kind": "reset_after_body"},
    "wallet_empty": {"kind": "code", "code": 5003},
}
MORE: dict[str, dict[str, Any]] = {
    # A simulated reviewer decides this case after the task has polled it once; see `planting.py`.
    "reviewed": {"wait_for_review": True, "deferrable": True, "review_timeout": 600.0},
    "accepted": {"output_path": f"{OUTPUT}/verification-{{{{ run_id }}}}.json"},
    "reduced": {
        "selfie": f"{GIVEN}/large.jpg",
        "documents": [{"front": f"{GIVEN}/large.jpg", "back": f"{GIVEN}/large.jpg"}],
        "resize_to": 16,
    },
    "declined_fails": {"fail_on_decline": True},
    "no_image": {"selfie": f"{GIVEN}/text.jpg"},
    "not_reduced": {"resize_to": 16},
}
#: Expected end state of each task: success in WELL, failed in BADLY.
WELL = (
    *("accepted", "refused_image", "review", "reviewed", "answer_lost", "reduced"),
    *("matches", "analyzes", "checks", "reports", "chooses", "verifies_many", "fetches_many"),
)
BADLY = (
    *("declined_fails", "outcome_unknown", "wallet_empty", "no_image", "not_reduced"),
    *("matches_text", "analyzes_nowhere", "checks_text", "reports_nothing", "chooses_nothing"),
    *("too_many_errors", "fetches_many_refused"),
)

with DAG(dag_id="every_image", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    verifications = {
        name: FacekiKycVerificationOperator(
            task_id=name,
            record_identifier=identifier,
            **{
                "selfie": f"{GIVEN}/selfie.jpg",
                "documents": [{"front": f"{GIVEN}/front.jpg", "back": f"{GIVEN}/back.jpg"}],
                "lookup_timeout": 1.0,
                **MORE.get(name, {}),
            },
        )
        for name, identifier in VERIFIED.items()
    }

    matches = FacekiFaceMatchOperator(task_id="matches", selfie=f"{GIVEN}/selfie.jpg")
    FacekiFaceMatchOperator(task_id="matches_text", selfie=f"{GIVEN}/text.jpg")
    not_chosen = FacekiAnalyzeFaceOperator(task_id="not_chosen", selfie=f"{GIVEN}/selfie.jpg")
    FacekiAnalyzeFaceOperator(task_id="analyzes", selfie=f"{GIVEN}/selfie.jpg")
    FacekiAnalyzeFaceOperator(
        task_id="analyzes_nowhere", selfie=f"{GIVEN}/selfie.jpg", faceki_conn_id="faceki_unreachable"
    )
    FacekiCheckImageOperator(task_id="checks", image=f"{GIVEN}/large.jpg", resize_to=16)
    FacekiCheckImageOperator(task_id="checks_text", image=f"{GIVEN}/text.jpg")
    FacekiPdfReportOperator(
        task_id="reports",
        request_id="{{ dag_run.conf['reported'] }}",
        output_path=f"{OUTPUT}/report-{{{{ run_id }}}}.pdf",
    )
    FacekiPdfReportOperator(
        task_id="reports_nothing",
        request_id="0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f41",
        output_path=f"{OUTPUT}/no-report.pdf",
    )
    ways = {"accepted": "matches", "declined": "not_chosen", "otherwise": "not_chosen"}
    chooses = FacekiDecisionBranchOperator(
        task_id="chooses", summary=verifications["accepted"].output, **ways
    )
    chooses >> [matches, not_chosen]
    FacekiDecisionBranchOperator(task_id="chooses_nothing", summary="{{ run_id }}", **ways)

    for name, manifest, most in (("verifies_many", "many", 1.0), ("too_many_errors", "many-more", 0.1)):
        FacekiBatchVerificationOperator(
            task_id=name,
            manifest=f"{GIVEN}/{manifest}.ndjson",
            output_path=f"{OUTPUT}/unasked/{{{{ run_id }}}}/{name}",
            max_error_rate=most,
            allowed_image_prefixes=[GIVEN],
            lookup_timeout=1.0,
        )
    for name, conn_id in (
        ("fetches_many", "faceki_default"),
        ("fetches_many_refused", "faceki_wrong_secret"),
    ):
        FacekiBatchFetchRecordsOperator(
            task_id=name,
            by="link",
            manifest=f"{GIVEN}/links.ndjson",
            output_path=f"{OUTPUT}/unasked/{{{{ run_id }}}}/{name}",
            faceki_conn_id=conn_id,
        )

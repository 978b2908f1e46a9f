# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with each operator that sends images of one person, mapped if that is useful, and branches by the decision."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG, BaseOperator, timezone

from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator
from airflow_provider_faceki.operators.images import (
    FacekiAnalyzeFaceOperator,
    FacekiCheckImageOperator,
    FacekiFaceMatchOperator,
)
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

FOLDER = os.environ.get("BILLED_FOLDER", "file:///tmp/billed")
#: Identifiers of the people; each identifier determines the outcome in the sandbox.
PEOPLE = ("accepted-1", "declined-2", "review-3", "decision-frozen-4", "code-8009-5")
CARD = [{"front": f"{FOLDER}/front.jpg", "back": f"{FOLDER}/back.jpg"}]


class Leaf(BaseOperator):
    """Task that does nothing; the test checks whether a branch selects it."""

    def execute(self, context: object) -> None:
        """Do nothing."""


def route(name: str, summary: object) -> None:
    """Create a branch, with one task behind each route."""
    ways = {way: f"{name}_{way}" for way in ("yes", "no", "also_no", "else")}
    FacekiDecisionBranchOperator(
        task_id=name,
        summary=summary,
        accepted=ways["yes"],
        declined=[ways["no"], "{{ task.task_id }}_also_no"],
        otherwise=ways["else"],
    ) >> [Leaf(task_id=task_id) for task_id in ways.values()]


with DAG(dag_id="billed_flows", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    verify = FacekiKycVerificationOperator.partial(
        task_id="verify",
        documents=CARD,
        output_path=f"{FOLDER}/{{{{ task.task_id }}}}-{{{{ ti.map_index }}}}.json",
    ).expand_kwargs(
        [
            {"selfie": f"{FOLDER}/selfie-{number}.jpg", "record_identifier": who}
            for number, who in enumerate(PEOPLE)
        ]
    )
    FacekiPdfReportOperator.partial(
        task_id="report", output_path=f"{FOLDER}/report-{{{{ ti.map_index }}}}.pdf"
    ).expand(request_id=verify.output.map(lambda summary: summary["request_id"]))

    selfies = [f"{FOLDER}/selfie-{number}.jpg" for number in range(2)]
    verify >> FacekiFaceMatchOperator.partial(task_id="match").expand(selfie=selfies)
    FacekiAnalyzeFaceOperator.partial(task_id="analyze").expand(selfie=selfies)
    FacekiCheckImageOperator.partial(
        task_id="check", faceki_conn_id="{{ dag_run.conf['connection'] }}"
    ).expand(image=selfies)

    for word in ("declined", "review"):
        one = FacekiKycVerificationOperator(
            task_id=word,
            selfie="{{ dag_run.conf['selfie'] }}",
            documents=["{{ dag_run.conf['selfie'] }}"],
            workflow_id="{{ dag_run.conf['passport'] }}",
            record_identifier="{{ task.task_id }}-routed",
        )
        route(f"route_{word}", one.output)
    found = FacekiFetchRecordsOperator(task_id="found", record_identifier="accepted-1")
    verify >> found
    route("route_found", found.output)

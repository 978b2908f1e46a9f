# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with three people and three decisions: a branch for one person, and the routing of many decisions."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, task_group, timezone

from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

PEOPLE = {"anna": "ACCEPTED", "bob": "DECLINED", "carla": "REVIEW"}
WAYS = {"accepted": "welcome", "declined": "decline", "otherwise": "ask"}


def ways(where: str) -> dict[str, str]:
    return {word: f"{where}{way}" for word, way in WAYS.items()}


@task
def went(way: str) -> str:
    return way


@task
def those(summaries: Any, decision: str) -> list[str]:
    return [str(each["record_identifier"]) for each in summaries if each["decision"] == decision]


with DAG(dag_id="branches", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    decisions = FacekiKycDecisionSensor.partial(
        task_id="decisions", wait_for_review=False, poke_interval=0.5, timeout=86_400
    ).expand(record_identifier=list(PEOPLE))

    FacekiDecisionBranchOperator(task_id="of_many", summary=decisions.output, **ways("of_many_")) >> [
        went.override(task_id=f"of_many_{way}")(way) for way in WAYS.values()
    ]
    FacekiDecisionBranchOperator.partial(task_id="mapped", **ways("mapped_")).expand(
        summary=decisions.output
    ) >> [went.override(task_id=f"mapped_{way}")(way) for way in WAYS.values()]

    @task_group
    def person(summary: Any) -> None:
        """Select the downstream tasks by the decision on one person."""
        FacekiDecisionBranchOperator(task_id="branch", summary=summary, **ways("person.")) >> [
            went.override(task_id=way)(way) for way in WAYS.values()
        ]

    person.expand(summary=decisions.output)
    for decision in ("ACCEPTED", "DECLINED"):
        went.override(task_id=f"{decision.lower()}_one").expand(
            way=those.override(task_id=f"all_{decision.lower()}")(decisions.output, decision)
        )

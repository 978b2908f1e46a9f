# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that fetches the rules of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_faceki.api.errors import (
    LinkError,
    UnexpectedResponseError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import ACCEPT_JSON, HttpRequest, Json
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowRules:
    """What a workflow asks of a person. Only the fields that this package uses are named. ``repr`` shows nothing of
    them: among the others is the webhook's URL, which may carry a key.

    :param documents: Documents to show: ``ID Card``, ``Passport``, ``Driving License``.
    :param document_optional: Whether the person chooses one of them instead of showing all.
    :param document: The rules as FACEKI sent them.
    """

    documents: tuple[str, ...]
    document_optional: bool
    document: Mapping[str, Json]

    @property
    def stores_records(self) -> bool:
        """Whether FACEKI keeps what it finds out, so that it can be asked for later: ``store_data``, which has no
        documentation but stands in the rules that FACEKI's iOS SDK reads. Unknown counts as kept.
        """
        return self.document.get("store_data") is not False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GetWorkflowRules:
    """Fetch the rules of a workflow, by its id or, without any token, by a link made for it.

    Not in FACEKI's documentation; seen in its official SDKs.

    :param workflow_id: Workflow from the FACEKI portal.
    :param link: Link id.
    :raises ValidationError: not exactly one of them is given, or it cannot be an id.
    """

    workflow_id: str | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        if (self.workflow_id is None) == (self.link is None):
            raise ValidationError("give exactly one of workflow_id and link")
        if self.link is None:
            check_identifier("workflow_id", self.workflow_id)
        else:
            check_identifier("link", self.link)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request. By link it carries no token: the link itself is the right to ask."""
        rules = f"{service.base_url}/api/v3/workflows/rules"
        by_link = self.link is not None
        return HttpRequest(
            "GET",
            f"{rules}bylink" if by_link else rules,
            query=(("link" if by_link else "workflowId", self.link or self.workflow_id or ""),),
            headers=ACCEPT_JSON,
            authenticated=not by_link,
            idempotent=True,
        )

    def read(self, answer: Payload) -> WorkflowRules:
        """Return the rules.

        :raises WorkflowError: FACEKI answers with none, which its React Native SDK takes for an unknown workflow.
        :raises LinkError: the same by a link.
        :raises UnexpectedResponseError: the answer holds something else.
        """
        rules = answer.result
        if rules is None and answer.document is not None:
            if self.link is not None:
                raise LinkError("FACEKI has no workflow rules for this link; is it right?")
            raise WorkflowError("FACEKI has no rules for this workflow; is the workflow id right?")
        if not isinstance(rules, dict) or not rules:
            raise UnexpectedResponseError(
                "FACEKI's answer holds no workflow rules; is the workflow id right?"
            )
        documents = rules.get("documents")
        names = documents if isinstance(documents, list) else []
        return WorkflowRules(
            tuple(name for name in names if isinstance(name, str)),
            rules.get("document_optional") is True,
            rules,
        )

    def __repr__(self) -> str:
        return f"<GetWorkflowRules by {'link' if self.link is not None else 'workflow_id'}>"

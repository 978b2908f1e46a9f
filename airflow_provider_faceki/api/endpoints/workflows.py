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
from airflow_provider_faceki.api.protocol.fields import as_flag, field, find_objects, plain
from airflow_provider_faceki.api.protocol.http import ACCEPT_JSON, HttpRequest, Json
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import check_identifier

# One of these makes an object the rules of a workflow.
_RULES_FIELDS = frozenset(
    {"documents", "documentoptional", "livenesstype", "storedata", "facematchscore", "allowedkycdocuments"}
)
_NAME_FIELDS = ("name", "document", "documentName", "document_type", "type", "label", "title", "value")


@dataclass(frozen=True, slots=True, repr=False)
class WorkflowRules:
    """The documents that a workflow asks of a person.

    Only the fields that this package uses are named. ``repr`` shows none of the others: among them is the webhook's
    URL, which may carry a key.

    :param documents: Documents to show: ``ID Card``, ``Passport``, ``Driving License``.
    :param document_optional: Whether the person chooses one of them instead of showing all.
    :param document: The rules as FACEKI sent them.
    """

    documents: tuple[str, ...]
    document_optional: bool
    document: Mapping[str, Json]

    @property
    def stores_records(self) -> bool:
        """Whether FACEKI keeps records of this workflow. Unknown counts as kept.

        It is the field ``store_data``, which is undocumented but stands in the rules that FACEKI's iOS SDK reads.
        """
        return as_flag(field(self.document, "store_data")) is not False


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
        if answer.result is None and answer.document is not None:
            if self.link is not None:
                raise LinkError(
                    "FACEKI has no workflow rules for this link; check the link", http_status=answer.status
                )
            raise WorkflowError(
                "FACEKI has no rules for this workflow; check the workflow id", http_status=answer.status
            )
        rules = _find_rules(answer.document)
        if rules is None:
            raise UnexpectedResponseError(
                f"FACEKI's answer holds no workflow rules with a list of documents; it holds {answer.found}. Check the "
                "workflow id",
                http_status=answer.status,
            )
        return rules

    def __repr__(self) -> str:
        return f"<GetWorkflowRules by {'link' if self.link is not None else 'workflow_id'}>"


def _is_rules(document: Mapping[str, Json]) -> bool:
    return any(plain(key) in _RULES_FIELDS for key in document)


def _find_rules(answer: Json) -> WorkflowRules | None:
    """Return the rules, or ``None`` if what they ask for is not understood: that must not pass for "nothing"."""
    found = find_objects(answer, _is_rules)
    if not found:
        return None
    document = found[0]
    documents = _document_names(field(document, "documents", "allowedKycDocuments"))
    if documents is None:
        return None
    return WorkflowRules(documents, as_flag(field(document, "document_optional")) is True, document)


def _document_names(value: Json) -> tuple[str, ...] | None:
    """Return the names of documents: sent as texts, as objects with a name, as flags by name, or as one text."""
    if isinstance(value, str):
        value = [text.strip() for text in value.split(",") if text.strip()]
    if isinstance(value, dict):
        flags = {name: as_flag(flag) for name, flag in value.items()}
        return tuple(name for name, flag in flags.items() if flag) if None not in flags.values() else None
    if not isinstance(value, list):
        return None
    names = [field(item, *_NAME_FIELDS) if isinstance(item, dict) else item for item in value]
    texts = tuple(name for name in names if isinstance(name, str) and name.strip())
    return texts if len(texts) == len(names) else None

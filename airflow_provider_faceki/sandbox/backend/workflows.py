# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The workflows of the sandbox and the documents that each workflow requires.

A workflow defines how persons are verified. FACEKI calls the settings of a workflow its rules. With the real FACEKI, a
customer creates workflows in the portal.

Sources: https://docs.faceki.com/ (quick guides, workflow setup) for the workflows, and an official SDK for the
structure of the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ID_CARD: Final = "ID Card"
PASSPORT: Final = "Passport"
DRIVING_LICENSE: Final = "Driving License"

WORKFLOW_ID_CARD: Final = "5a4db0c5-0000-4000-8000-000000000001"
WORKFLOW_PASSPORT: Final = "5a4db0c5-0000-4000-8000-000000000002"
WORKFLOW_TWO_DOCUMENTS: Final = "5a4db0c5-0000-4000-8000-000000000003"
WORKFLOW_THREE_DOCUMENTS: Final = "5a4db0c5-0000-4000-8000-000000000004"
WORKFLOW_ANY_ONE: Final = "5a4db0c5-0000-4000-8000-000000000005"

DEFAULT_WORKFLOW: Final = WORKFLOW_ID_CARD
COMPANY_ID: Final = "sandbox-company"
BRANCH_ID: Final = "sandbox-branch"


@dataclass(frozen=True)
class Workflow:
    """A workflow, with the documents that a person must present.

    :param documents: the kinds of documents.
    :param optional: whether one document of `documents` is sufficient. If false, all documents are required.
    """

    workflow_id: str
    documents: tuple[str, ...]
    optional: bool = False

    @property
    def documents_needed(self) -> int:
        return 1 if self.optional else len(self.documents)

    @property
    def backs_needed(self) -> int:
        """The number of required images of the back sides of documents.

        A passport has no back side. If the person can choose a passport, no image of a back side is required.
        """
        if self.optional:
            return 0 if PASSPORT in self.documents else 1
        return sum(kind != PASSPORT for kind in self.documents)

    def rules(self, callback_url: str) -> dict[str, object]:
        """Return the rules (the settings of this workflow) in FACEKI's form.

        :param callback_url: the value of `callbackURL`. Official SDKs parse it as a URL, so an empty text is invalid.
        """
        return {
            "_id": f"rules-{self.workflow_id[-4:]}",
            "branchId": BRANCH_ID,
            "workflowId": self.workflow_id,
            "companyId": COMPANY_ID,
            "documents": list(self.documents),
            "nationality": [],
            "countries": [],
            "liveness_type": "MODERATE",
            "custom_internal_engine": None,
            "ocr_only": False,
            "user_verify_once": False,
            "document_optional": self.optional,
            "store_data": True,
            "store_data_expiry": None,
            "recaptured_allow": False,
            "geolocation_enforce": False,
            "auto_capture": False,
            "sms_verification": False,
            "email_verification": False,
            "face_match_score": 95,
            "minAge": 18,
            "maxAge": 100,
            "amlType": "STANDARD",
            "callbackURL": callback_url,
            "region": "sandbox",
            "theme": _THEME,
            "__v": 0,
        }


_THEME: Final = {
    **dict.fromkeys(("backgroundColor", "cardBackgroundColor", "iconColorDesktop", "buttonColor"), ""),
    **dict.fromkeys(("headingColor", "textColor", "iconColor", "selfieImage", "logoImage"), ""),
    "skipEmailScreen": False,
    "skipResult": False,
    "successText": "",
    "declineText": "",
    "imageUrls": [],
    "language": "",
}

WORKFLOWS: Final[dict[str, Workflow]] = {
    workflow.workflow_id: workflow
    for workflow in (
        Workflow(WORKFLOW_ID_CARD, (ID_CARD,)),
        Workflow(WORKFLOW_PASSPORT, (PASSPORT,)),
        Workflow(WORKFLOW_TWO_DOCUMENTS, (ID_CARD, PASSPORT)),
        Workflow(WORKFLOW_THREE_DOCUMENTS, (ID_CARD, PASSPORT, DRIVING_LICENSE)),
        Workflow(WORKFLOW_ANY_ONE, (ID_CARD, PASSPORT, DRIVING_LICENSE), optional=True),
    )
}

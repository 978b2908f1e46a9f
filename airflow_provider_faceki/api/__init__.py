# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI for Python, without Airflow.

Names are imported on first use, so that a DAG file which mentions them costs nothing to parse.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_faceki.api.auth import AuthFlow as AuthFlow
    from airflow_provider_faceki.api.client import AsyncFacekiClient as AsyncFacekiClient
    from airflow_provider_faceki.api.client import FacekiClient as FacekiClient
    from airflow_provider_faceki.api.endpoints import Call as Call
    from airflow_provider_faceki.api.endpoints import FetchRecords as FetchRecords
    from airflow_provider_faceki.api.endpoints import GenerateKycLink as GenerateKycLink
    from airflow_provider_faceki.api.endpoints import GetWorkflowRules as GetWorkflowRules
    from airflow_provider_faceki.api.endpoints import KycLink as KycLink
    from airflow_provider_faceki.api.endpoints import WorkflowRules as WorkflowRules
    from airflow_provider_faceki.api.errors import AnswerError as AnswerError
    from airflow_provider_faceki.api.errors import AnswerLostError as AnswerLostError
    from airflow_provider_faceki.api.errors import AuthenticationError as AuthenticationError
    from airflow_provider_faceki.api.errors import ConfigurationError as ConfigurationError
    from airflow_provider_faceki.api.errors import ConnectError as ConnectError
    from airflow_provider_faceki.api.errors import FacekiError as FacekiError
    from airflow_provider_faceki.api.errors import InputError as InputError
    from airflow_provider_faceki.api.errors import LinkError as LinkError
    from airflow_provider_faceki.api.errors import NotFoundError as NotFoundError
    from airflow_provider_faceki.api.errors import OutcomeUnknownError as OutcomeUnknownError
    from airflow_provider_faceki.api.errors import QuotaError as QuotaError
    from airflow_provider_faceki.api.errors import RequestRefusedError as RequestRefusedError
    from airflow_provider_faceki.api.errors import ServiceError as ServiceError
    from airflow_provider_faceki.api.errors import ThrottledError as ThrottledError
    from airflow_provider_faceki.api.errors import TlsError as TlsError
    from airflow_provider_faceki.api.errors import TransportError as TransportError
    from airflow_provider_faceki.api.errors import UnexpectedAnswerError as UnexpectedAnswerError
    from airflow_provider_faceki.api.errors import VerificationError as VerificationError
    from airflow_provider_faceki.api.errors import WorkflowError as WorkflowError
    from airflow_provider_faceki.api.image_endpoints import AnalyzeFace as AnalyzeFace
    from airflow_provider_faceki.api.image_endpoints import CheckImage as CheckImage
    from airflow_provider_faceki.api.image_endpoints import FaceAnalysis as FaceAnalysis
    from airflow_provider_faceki.api.image_endpoints import FaceMatch as FaceMatch
    from airflow_provider_faceki.api.image_endpoints import ImageCheck as ImageCheck
    from airflow_provider_faceki.api.multipart import Image as Image
    from airflow_provider_faceki.api.performers import Concealer as Concealer
    from airflow_provider_faceki.api.records import Decision as Decision
    from airflow_provider_faceki.api.records import Summary as Summary
    from airflow_provider_faceki.api.records import VerificationRecord as VerificationRecord
    from airflow_provider_faceki.api.records import decided as decided
    from airflow_provider_faceki.api.records import latest as latest
    from airflow_provider_faceki.api.report import FetchPdfReport as FetchPdfReport
    from airflow_provider_faceki.api.report import PdfReport as PdfReport
    from airflow_provider_faceki.api.retry import RetryPolicy as RetryPolicy
    from airflow_provider_faceki.api.service import Service as Service
    from airflow_provider_faceki.api.transport import TransportSettings as TransportSettings
    from airflow_provider_faceki.api.verification import Document as Document
    from airflow_provider_faceki.api.verification import FindKycVerification as FindKycVerification
    from airflow_provider_faceki.api.verification import KycVerification as KycVerification
    from airflow_provider_faceki.api.verification import PerformKycVerification as PerformKycVerification
    from airflow_provider_faceki.api.verification import VerificationSummary as VerificationSummary
    from airflow_provider_faceki.api.verification import check_documents as check_documents
    from airflow_provider_faceki.api.verification import newest_since as newest_since
    from airflow_provider_faceki.api.webhook import Hint as Hint
    from airflow_provider_faceki.api.webhook import Unusable as Unusable
    from airflow_provider_faceki.api.webhook import read_hint as read_hint

_MODULES = {
    "auth": ("AuthFlow",),
    "client": ("AsyncFacekiClient", "FacekiClient"),
    "endpoints": ("Call", "FetchRecords", "GenerateKycLink", "GetWorkflowRules", "KycLink", "WorkflowRules"),
    "errors": (
        "AnswerError",
        "AnswerLostError",
        "AuthenticationError",
        "ConfigurationError",
        "ConnectError",
        "FacekiError",
        "InputError",
        "LinkError",
        "NotFoundError",
        "OutcomeUnknownError",
        "QuotaError",
        "RequestRefusedError",
        "ServiceError",
        "ThrottledError",
        "TlsError",
        "TransportError",
        "UnexpectedAnswerError",
        "VerificationError",
        "WorkflowError",
    ),
    "image_endpoints": ("AnalyzeFace", "CheckImage", "FaceAnalysis", "FaceMatch", "ImageCheck"),
    "multipart": ("Image",),
    "performers": ("Concealer",),
    "records": ("Decision", "Summary", "VerificationRecord", "decided", "latest"),
    "report": ("FetchPdfReport", "PdfReport"),
    "retry": ("RetryPolicy",),
    "service": ("Service",),
    "transport": ("TransportSettings",),
    "verification": (
        "Document",
        "FindKycVerification",
        "KycVerification",
        "PerformKycVerification",
        "VerificationSummary",
        "check_documents",
        "newest_since",
    ),
    "webhook": ("Hint", "Unusable", "read_hint"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

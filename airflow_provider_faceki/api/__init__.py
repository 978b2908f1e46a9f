# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI for Python, without Airflow.

Names are imported on first use, so that a DAG file which mentions them costs nothing to parse.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient as AsyncFacekiClient
    from airflow_provider_faceki.api.client import FacekiClient as FacekiClient
    from airflow_provider_faceki.api.endpoints.images import AnalyzeFace as AnalyzeFace
    from airflow_provider_faceki.api.endpoints.images import CheckImage as CheckImage
    from airflow_provider_faceki.api.endpoints.images import FaceAnalysis as FaceAnalysis
    from airflow_provider_faceki.api.endpoints.images import FaceMatch as FaceMatch
    from airflow_provider_faceki.api.endpoints.images import ImageCheck as ImageCheck
    from airflow_provider_faceki.api.endpoints.records import FetchRecords as FetchRecords
    from airflow_provider_faceki.api.endpoints.records import GenerateKycLink as GenerateKycLink
    from airflow_provider_faceki.api.endpoints.records import GetWorkflowRules as GetWorkflowRules
    from airflow_provider_faceki.api.endpoints.records import KycLink as KycLink
    from airflow_provider_faceki.api.endpoints.records import RawCall as RawCall
    from airflow_provider_faceki.api.endpoints.records import WorkflowRules as WorkflowRules
    from airflow_provider_faceki.api.endpoints.reports import FetchPdfReport as FetchPdfReport
    from airflow_provider_faceki.api.endpoints.reports import PdfReport as PdfReport
    from airflow_provider_faceki.api.endpoints.verification import Document as Document
    from airflow_provider_faceki.api.endpoints.verification import (
        FindKycVerification as FindKycVerification,
    )
    from airflow_provider_faceki.api.endpoints.verification import KycVerification as KycVerification
    from airflow_provider_faceki.api.endpoints.verification import (
        PerformKycVerification as PerformKycVerification,
    )
    from airflow_provider_faceki.api.endpoints.verification import (
        VerificationSummary as VerificationSummary,
    )
    from airflow_provider_faceki.api.endpoints.verification import check_documents as check_documents
    from airflow_provider_faceki.api.endpoints.verification import newest_since as newest_since
    from airflow_provider_faceki.api.errors import AuthenticationError as AuthenticationError
    from airflow_provider_faceki.api.errors import ConfigurationError as ConfigurationError
    from airflow_provider_faceki.api.errors import ConnectError as ConnectError
    from airflow_provider_faceki.api.errors import FacekiError as FacekiError
    from airflow_provider_faceki.api.errors import InvalidRequestError as InvalidRequestError
    from airflow_provider_faceki.api.errors import LinkError as LinkError
    from airflow_provider_faceki.api.errors import NotFoundError as NotFoundError
    from airflow_provider_faceki.api.errors import OutcomeUnknownError as OutcomeUnknownError
    from airflow_provider_faceki.api.errors import QuotaError as QuotaError
    from airflow_provider_faceki.api.errors import RateLimitError as RateLimitError
    from airflow_provider_faceki.api.errors import ResponseError as ResponseError
    from airflow_provider_faceki.api.errors import ResponseLostError as ResponseLostError
    from airflow_provider_faceki.api.errors import ServiceError as ServiceError
    from airflow_provider_faceki.api.errors import TlsError as TlsError
    from airflow_provider_faceki.api.errors import TransportError as TransportError
    from airflow_provider_faceki.api.errors import UnexpectedResponseError as UnexpectedResponseError
    from airflow_provider_faceki.api.errors import ValidationError as ValidationError
    from airflow_provider_faceki.api.errors import VerificationError as VerificationError
    from airflow_provider_faceki.api.errors import WorkflowError as WorkflowError
    from airflow_provider_faceki.api.models import Decision as Decision
    from airflow_provider_faceki.api.models import Summary as Summary
    from airflow_provider_faceki.api.models import VerificationRecord as VerificationRecord
    from airflow_provider_faceki.api.models import final_record as final_record
    from airflow_provider_faceki.api.models import latest as latest
    from airflow_provider_faceki.api.protocol.auth import AuthFlow as AuthFlow
    from airflow_provider_faceki.api.protocol.webhook import InvalidWebhookError as InvalidWebhookError
    from airflow_provider_faceki.api.protocol.webhook import WebhookNotification as WebhookNotification
    from airflow_provider_faceki.api.protocol.webhook import parse_webhook as parse_webhook
    from airflow_provider_faceki.api.service import Service as Service
    from airflow_provider_faceki.api.transport.drivers import SecretMasker as SecretMasker
    from airflow_provider_faceki.api.transport.http_transport import (
        TransportSettings as TransportSettings,
    )
    from airflow_provider_faceki.api.transport.multipart import Image as Image
    from airflow_provider_faceki.api.transport.retry import RetryPolicy as RetryPolicy

_MODULES = {
    "protocol.auth": ("AuthFlow",),
    "client": ("AsyncFacekiClient", "FacekiClient"),
    "endpoints.records": (
        "RawCall",
        "FetchRecords",
        "GenerateKycLink",
        "GetWorkflowRules",
        "KycLink",
        "WorkflowRules",
    ),
    "errors": (
        "ResponseError",
        "ResponseLostError",
        "AuthenticationError",
        "ConfigurationError",
        "ConnectError",
        "FacekiError",
        "ValidationError",
        "LinkError",
        "NotFoundError",
        "OutcomeUnknownError",
        "QuotaError",
        "InvalidRequestError",
        "ServiceError",
        "RateLimitError",
        "TlsError",
        "TransportError",
        "UnexpectedResponseError",
        "VerificationError",
        "WorkflowError",
    ),
    "endpoints.images": ("AnalyzeFace", "CheckImage", "FaceAnalysis", "FaceMatch", "ImageCheck"),
    "transport.multipart": ("Image",),
    "transport.drivers": ("SecretMasker",),
    "models": ("Decision", "Summary", "VerificationRecord", "final_record", "latest"),
    "endpoints.reports": ("FetchPdfReport", "PdfReport"),
    "transport.retry": ("RetryPolicy",),
    "service": ("Service",),
    "transport.http_transport": ("TransportSettings",),
    "endpoints.verification": (
        "Document",
        "FindKycVerification",
        "KycVerification",
        "PerformKycVerification",
        "VerificationSummary",
        "check_documents",
        "newest_since",
    ),
    "protocol.webhook": ("WebhookNotification", "InvalidWebhookError", "parse_webhook"),
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

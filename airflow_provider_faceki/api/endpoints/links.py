# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that creates a verification link. A person opens the link in a browser and is verified on FACEKI's page."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_faceki.api.arguments import check_minutes, is_web_url
from airflow_provider_faceki.api.errors import UnexpectedResponseError, ValidationError
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import texts
from airflow_provider_faceki.api.protocol.messages import JSON_HEADERS, HttpRequest, Json, json_body
from airflow_provider_faceki.api.protocol.session import AuthSession, MaskSecret, Steps, call_once
from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.values import as_link_id, check_identifier, is_maskable

# The fields `_ID_FIELDS` of an answer possibly contain the id of a link. The most probable names are first. The empty
# name means that the whole answer is a text and not an object. The fields `_URL_FIELDS` possibly contain the URL of a
# link. All names are in lower case and without `_`, as the function `plain` returns them.
_ID_FIELDS = ("linkid", "data", "link", "result", "kyclink", "kyclinkid", "uuid", "id", "url", "")
_URL_FIELDS = frozenset(
    {
        *("url", "linkurl", "kycurl", "kyclink", "verificationurl", "verificationlink"),
        *("href", "link", "data", "result"),
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class KycLink:
    """A verification link. Anyone who knows its id or URL can submit images, so the ``repr`` hides both.

    :param link: Id of the link. Records can be filtered by this id.
    :param url: URL of FACEKI's page for the person, or ``None`` if FACEKI's answer contains no URL.
    :param record_identifier: The caller's own id that was sent to FACEKI, or ``None``.
    """

    link: str
    url: str | None
    record_identifier: str | None

    def __repr__(self) -> str:
        return "<KycLink>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GenerateKycLink:
    """Create a link to a page on which one person is verified in a browser.

    https://docs.faceki.com/api-integration/verification-apis/generate-kyc-link

    Each call creates a new link. If the answer is lost, the request is not sent again. FACEKI possibly has created a
    link, but this link is harmless, because nobody knows its URL.

    :param workflow_id: Id of the workflow from the FACEKI portal (a UUID).
    :param record_identifier: Your own id of the person or case. The id is sent in the field ``applicationId``. It is
        assumed that the record of the verification contains the id in the field ``record_identifier``.
    :param expires_in_minutes: Whole minutes until the link expires. FACEKI's own Python client sends 0. Possibly 0
        means "never", but no source confirms this. By default no value is sent, so FACEKI's unpublished default
        applies.
    :param redirect_url: The ``https`` or ``http`` URL that the browser opens after the verification.
    :raises ValidationError: if an argument is invalid.
    """

    workflow_id: str
    record_identifier: str | None = None
    expires_in_minutes: int | None = None
    redirect_url: str | None = None

    def __post_init__(self) -> None:
        check_identifier("workflow_id", self.workflow_id)
        if self.record_identifier is not None:
            check_identifier("record_identifier", self.record_identifier)
        check_minutes("expires_in_minutes", self.expires_in_minutes)
        if self.redirect_url is not None and not is_web_url(self.redirect_url):
            raise ValidationError("redirect_url must be an absolute http or https URL, or None")

    def request(self, service: Service = FACEKI) -> HttpRequest:
        fields: dict[str, Json] = {
            "workflowId": self.workflow_id,
            "applicationId": self.record_identifier,
            "expiryTime": self.expires_in_minutes,
            "redirect_url": self.redirect_url,
        }
        return HttpRequest(
            "POST",
            f"{service.base_url}/kycverify/api/kycverify/kyc-verify-link",
            headers=JSON_HEADERS,
            body=json_body({name: value for name, value in fields.items() if value is not None}),
        )

    def read(self, answer: Payload) -> KycLink:
        """Return the link in FACEKI's answer.

        FACEKI documents that the field ``data`` of the answer contains the id, and that another field contains the URL.
        Fields such as ``linkId`` and ``link`` are accepted too. If the answer contains only a URL, the id is
        extracted from the URL.

        :raises UnexpectedResponseError: if the answer contains no link id, or if the answer belongs to another record
            identifier than the request.
        """
        found = _find_link(answer.document)
        if found is None:
            raise answer.unexpected("FACEKI's answer to a link request contains no valid link id")
        link, url = found
        if _names_another(answer.document, self.record_identifier):
            raise UnexpectedResponseError(
                "FACEKI's answer to a link request contains another record identifier than the request",
                http_status=answer.status,
            )
        return KycLink(link, url, self.record_identifier)

    def steps(self, session: AuthSession) -> Steps[KycLink]:
        """Create the link, and mask its id in later log lines.

        Without masking, the link can appear in a log. For example, Airflow logs the URL if a ``@task`` returns the URL.
        Usually the URL contains the id, so masking the id is enough. If the URL does not contain the id, the whole URL
        is masked too.
        """
        made = yield from call_once(session, self)
        if is_maskable(made.link):
            yield MaskSecret(made.link, is_link=True)
        if made.url is not None and made.link not in made.url:
            yield MaskSecret(made.url, is_link=True)
        return made

    def __repr__(self) -> str:
        # The `repr` does not contain the caller's own id, because the id is possibly personal data, such as the number
        # of an identity card. The `repr` does not contain the redirect URL, because this URL possibly contains a key.
        return f"<GenerateKycLink for workflow {self.workflow_id!r}>"


def _find_link(document: Json) -> tuple[str, str | None] | None:
    """Return the id and the URL of the link in an answer, or ``None`` if there is no id."""
    found = list(texts(document, in_lists=False))
    urls = [text for name, text in found if name in _URL_FIELDS and is_web_url(text)]
    by_name: dict[str, list[str]] = {}
    for name, text in found:
        by_name.setdefault(name, []).append(text)
    named = (text for name in _ID_FIELDS for text in by_name.get(name, ()))
    link = next(filter(None, map(as_link_id, [*named, *urls])), None)
    return (SecretText(link), SecretText(urls[0]) if urls else None) if link is not None else None


def _names_another(document: Json, record_identifier: str | None) -> bool:
    named = {text for name, text in texts(document) if name in {"applicationid", "recordidentifier"}}
    return record_identifier is not None and bool(named) and record_identifier not in named

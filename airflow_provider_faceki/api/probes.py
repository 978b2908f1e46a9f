# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Test requests that find out which settings a FACEKI installation needs.

Settings are needed if the installation differs from FACEKI's documentation. The result of the test requests is a list
of findings. A finding is a question about the installation with its answer. The answer contains names of JSON keys,
statuses and codes, but never a secret, an id or personal data.

One test request creates a link. FACEKI possibly charges this request, so it is not sent by default. As far as is known,
FACEKI does not charge the other test requests.
"""

from __future__ import annotations

import math
import re
import secrets
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import partial
from urllib.parse import urlsplit

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.records import NULL_ADVICE, FetchRecords
from airflow_provider_faceki.api.endpoints.reports import FetchPdfReport
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules, WorkflowRules
from airflow_provider_faceki.api.errors import (
    CHECK_ADVICE,
    AuthenticationError,
    ConfigurationError,
    FacekiError,
    LinkError,
    NotFoundError,
    TransportError,
    UnexpectedResponseError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.protocol.fields import describe, describe_keys
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse
from airflow_provider_faceki.api.protocol.session import Endpoint
from airflow_provider_faceki.api.service import (
    FACEKI,
    FILTER_PLACEHOLDERS,
    OTHER_RECORDS_PATH,
    AuthFlow,
    Service,
)
from airflow_provider_faceki.api.tokens.memory import MemoryTokenStore
from airflow_provider_faceki.api.transport.http_transport import Transport
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from airflow_provider_faceki.api.values import parse_json

#: Maximum number of requests for records that one run of ``airflow faceki check`` sends. One or two further requests
#: have a made-up token and are not counted. The requests ask for random identifiers, so FACEKI has no record for them.
#: The answers show whether FACEKI knows the path and the name of the filter, and how FACEKI reports that there is no
#: record.
MAX_RECORDS_REQUESTS = 100
#: Number of requests for records that are reserved for the test of the four record filters, such as ``request_id``.
#: They are a part of :data:`MAX_RECORDS_REQUESTS`. The test of one filter needs up to four requests: one request, a
#: second one if the answer is null, and a repetition of each of the two if FACEKI refuses the token.
_NEEDED_RECORDS_REQUESTS = 4 * len(FILTER_PLACEHOLDERS)
#: Texts that describe the test requests that FACEKI does not charge, as far as is known. The request that creates a
#: verification link is not included. The command ``airflow faceki check`` shows these texts to the user before it sends
#: the requests. Each number in a text is a maximum number of requests.
FREE_CALLS = (
    "token requests: one in the configured form; if that fails, one in each of the other five forms",
    "records of identifiers made up for this check: four requests if all is as configured, else at most "
    f"{MAX_RECORDS_REQUESTS}",
    "records with a token made up for this check: one or two requests",
    "rules of the Connection's default workflow, if it has one: one or two requests",
    "the PDF report of a made-up request id, if pdf_report_path is set: one to four requests",
)
#: Values that the test requests try, with the most probable values first. ``_RECORDS_PATHS`` contains the paths for
#: fetching records. ``_FILTER_NAMES`` contains the spellings of the name of each record filter.
_RECORDS_PATHS = (FACEKI.records_path, OTHER_RECORDS_PATH, "/api/v3/records")
_FILTER_NAMES = {
    "record_identifier": ("record_identifier", "recordIdentifier", "referenceId", "applicationId"),
    "request_id": ("requestId", "request_id"),
    "link": ("link", "linkId", "link_id"),
    "face_id": ("face_id", "faceId"),
}
#: Ways to send the access token that the test requests try. Each is a pair of an HTTP header and the prefix (scheme) of
#: the token.
_PLACES = (
    ("authorization", "Bearer"),
    ("authorization", ""),
    ("x-access-token", ""),
    ("x-access-token", "Bearer"),
)
# Answer that the check shows if the workflow id in the Connection is not valid, for example because it is too long or
# is a text for a missing value, such as "null". In this case, the check sends no request with the workflow id.
_NO_WORKFLOW_ID = "the Connection's default workflow is not a valid id"
_WORKFLOW_SETTING = {"workflow_id": "the id in FACEKI's portal"}


class Level(StrEnum):
    """Level of a finding (one question about the FACEKI installation, with its answer).

    The level says whether the user has to change a setting of the Airflow Connection.
    """

    #: The settings of the Connection work, so the user does not have to change them.
    OK = "ok"
    #: The user has to change at least one setting of the Connection.
    CHANGE = "change"
    #: The call failed with all settings that were tried, or FACEKI could not be reached.
    BROKEN = "broken"
    #: The test requests did not show whether a setting has to be changed.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Finding:
    """One question about the FACEKI installation, with its answer.

    :param uncertainty: Why FACEKI's documentation does not answer the question. For example, it contains two different
        paths.
    :param level: Whether the user has to change settings of the Airflow Connection.
    :param settings: The settings that the user has to change, with their new values. A key is ``auth_flow``,
        ``workflow_id`` or the name of an attribute of :class:`Service`.
    """

    question: str
    uncertainty: str
    answer: str
    level: Level = Level.OK
    settings: Mapping[str, str] = field(default_factory=dict)


# The questions that the check answers. Each name below is a function that takes the answer and returns a finding (the
# question with its answer).
_TOKEN_FORM = partial(
    Finding,
    "Which token form works?",
    "FACEKI's documentation has printed four forms, the V2 pages and the SDKs two more",
)
_LIFETIME = partial(Finding, "How long is a token valid?", "5 minutes or 3600 s are documented")
_TOKEN_IS_SENT = partial(
    Finding, "How is the token sent?", "the token's header is documented, and not shown in use"
)
_RECORDS_ARE = partial(Finding, "Where are records?", "two paths are documented")
_NOTHING_IS = partial(
    Finding,
    'What is "nothing found"?',
    "not documented; an empty list, code 8013, null and 404 are plausible",
)
_WRONG_TOKEN = partial(
    Finding,
    "How does FACEKI refuse an expired token?",
    "not documented; HTTP 401, 403 and 200 with a code are seen elsewhere",
)
_RULES = partial(Finding, "What are the rules of the default workflow?", "the route is in FACEKI's SDKs only")
_REPORT = partial(Finding, "How are PDF reports fetched?", "neither path nor method is in a public source")
_LINK = partial(
    Finding, "Which host is in a new link?", "FACEKI's documentation and other sources show different hosts"
)


class _FixedTokenStore(MemoryTokenStore):
    """Token store that keeps its token, even if FACEKI refuses the token. So the client requests no new token."""

    def invalidate(self, token: AccessToken) -> None:
        pass


class _Recorder:
    """Transport that sends requests through another transport, and stores a description of the last response."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.rate_limiter = transport.rate_limiter
        self.last = "no answer"
        self.sent = 0

    def send(self, request: HttpRequest) -> HttpResponse:
        self.last = "no answer"
        self.sent += 1
        response = self._transport.send(request)
        self.last = describe_response(response)
        return response


@dataclass(frozen=True, repr=False)
class _ProbeClient(FacekiClient):
    """Client with a fixed access token. If FACEKI refuses the token, the client repeats the request once."""

    token: AccessToken | None = None
    recorder: _Recorder | None = None

    def _shared_transport(self) -> Transport:
        return self.recorder  # type: ignore[return-value]  # the driver uses only `send` and `rate_limiter`

    def _store(self, request: TokenRequest) -> MemoryTokenStore:
        store = _FixedTokenStore()
        if self.token is not None:
            # The token gets an infinite lifetime, so that the client does not replace it during the check.
            store.set(replace(self.token, lifetime=math.inf))
        return store


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Outcome of one test request.

    :param result: Result of the call, or ``None`` if the call failed.
    :param error: Error of the test request, or ``None`` if the request succeeded.
    :param shape: Short description of the answer: its status, media type and JSON keys, without the values.
    :param service: URLs, paths and field names that the test request used.
    """

    result: object
    error: FacekiError | None
    shape: str
    service: Service


class Diagnosis:
    """Find out by test requests which settings work for one FACEKI account.

    Each result is a finding: one question about FACEKI with its answer, for example which form of the token request
    works. The test requests for a finding are sent only when the caller asks for this finding.

    :param client: Client with the configured settings.
    :param workflow_id: Id of the default workflow of the Airflow Connection, or ``None``.
    """

    def __init__(self, client: FacekiClient, workflow_id: str | None = None) -> None:
        values = {each.name: getattr(client, each.name) for each in fields(FacekiClient)}
        self._recorder = _Recorder(client._shared_transport())
        self._client = _ProbeClient(
            **(values | {"retry": RetryPolicy(max_attempts=1)}), recorder=self._recorder
        )
        self._workflow_id = workflow_id
        self._records_requests = 0
        self._refusals: list[tuple[AuthFlow, FacekiError]] = []
        self._unused_identifier = f"faceki-check-{secrets.token_hex(8)}"

    def findings(self, *, make_link: bool = False) -> Iterator[Finding]:
        """Send the test requests in order. For each question about the FACEKI installation, yield the finding.

        The first finding is about the access token. If FACEKI returns no access token, no other finding is yielded,
        because the other test requests need a token.

        :param make_link: Whether the request that creates a verification link is sent. FACEKI possibly charges this
            request.
        """
        token = self.token()
        yield token
        if token.level is Level.BROKEN:
            return
        found = self._client.token
        yield _LIFETIME(f"{found.lifetime:.0f} s" if found else "unknown")
        place = yield from self._records()
        if place:
            yield self._wrong_token()
        yield self._rules()
        yield self._report()
        if make_link:
            yield self._link()

    def token(self) -> Finding:
        """Find out which form of the token request works, and return the finding (the question with its answer).

        FACEKI's documentation and SDKs contain several forms. The configured form is tried first. If it fails, each
        other form is tried once, until one works. If FACEKI does not answer at all, no other form is tried.
        """
        configured = self._client.auth_flow
        error = self._try_auth_flow(configured)
        if error is None:
            return _TOKEN_FORM(f"{configured.value}, as configured")
        if isinstance(error, TransportError):
            return _TOKEN_FORM(_error_text(error), Level.BROKEN)
        found = self.other_auth_flow()
        if found is None:
            return _TOKEN_FORM(_no_form(self._refusals), Level.BROKEN)
        answer = f"{found.value}; not {configured.value} ({_error_text(error)})"
        return _TOKEN_FORM(answer, Level.CHANGE, {"auth_flow": found.value})

    def other_auth_flow(self, *, in_url: bool = True) -> AuthFlow | None:
        """Try all forms of the token request except the configured form, and return the first form that works.

        A form works if FACEKI returns a token. All later test requests use the form that works and its token. If no
        form works, return ``None``.

        :param in_url: Whether the form with the secret in the URL is tried too.
        """
        configured = self._client.auth_flow
        for flow in (flow for flow in AuthFlow if flow is not configured):
            if flow.sends_url and not in_url:
                continue
            if self._try_auth_flow(flow) is None:
                return flow
        return None

    def _try_auth_flow(self, flow: AuthFlow) -> FacekiError | None:
        if flow.sends_headers and not (self._client.client_id + self._client.client_secret).isascii():
            return ConfigurationError(
                "the Client ID or the Client Secret contains characters that are not allowed in an HTTP header"
            )
        client = replace(self._client, auth_flow=flow)
        try:
            token = client.fetch_access_token()
        except FacekiError as error:
            self._refusals.append((flow, error))
            return error
        self._client = replace(client, token=token)
        return None

    def _records(self) -> Generator[Finding, None, bool]:
        configured, changes = self._client.service, dict[str, str]()
        outcome = self._fetch("record_identifier", configured)
        shape, error = outcome.shape, outcome.error
        found = None
        if error is not None and not isinstance(error, TransportError):
            found = self._first_that_works("record_identifier", self._other_services(error))
        elif error is None:
            found = self._use_service(outcome)
        if found is not None:
            changes, shape = found
        elif error is not None:
            is_about_token = isinstance(error, AuthenticationError) and error.http_status not in {404, 405}
            question = _TOKEN_IS_SENT if is_about_token else _RECORDS_ARE
            answer = _error_text(error)
            if not isinstance(error, TransportError):
                answer = f"no setting that was tried works: {answer}; the answer was: {shape}"
            yield question(answer, Level.BROKEN)
            return False
        yield _setting_row(_TOKEN_IS_SENT, changes, ("auth_header", "auth_scheme"))
        yield _setting_row(_RECORDS_ARE, changes, ("records_path",))
        yield _setting_row(_found_by("record_identifier"), changes, ("record_identifier_filter",))
        yield _setting_row(_NOTHING_IS, changes, ("null_result",), shape)
        for name in ("request_id", "link", "face_id"):
            yield self._filter(name)
        return True

    def _other_services(self, error: FacekiError) -> Iterator[Service]:
        service = self._client.service
        places = [replace(service, auth_header=header, auth_scheme=scheme) for header, scheme in _PLACES]
        moved = [replace(service, records_path=path) for path in _RECORDS_PATHS]
        is_missing = error.http_status in {404, 405} or not isinstance(error, AuthenticationError)
        yield from (*moved, *places) if is_missing else (*places, *moved)
        yield from self._other_filters("record_identifier")

    def _other_filters(self, name: str) -> Iterator[Service]:
        service = self._client.service
        for spelling in _FILTER_NAMES[name]:
            yield replace(service, **{f"{name}_filter": spelling})
        for base in dict.fromkeys((service.records_path, *_RECORDS_PATHS)):
            for part in (*(f"/{spelling}" for spelling in _FILTER_NAMES[name]), ""):
                yield replace(service, **{f"{name}_filter": f"{base}{part}/{FILTER_PLACEHOLDERS[name]}"})

    def _filter(self, name: str) -> Finding:
        question = _found_by(name)
        outcome = self._fetch(name, self._client.service)
        if outcome.error is None and outcome.service == self._client.service:
            return question(f"as configured; nothing found is: {outcome.shape}")
        if outcome.error is None:
            settings, shape = self._use_service(outcome)
            return question(f"otherwise; nothing found is: {shape}", Level.CHANGE, settings)
        found = self._first_that_works(name, self._other_filters(name))
        if found is None:
            error = _error_text(outcome.error)
            return question(f"not found out: {error}; {outcome.shape}", Level.OPEN)
        return question(f"otherwise; nothing found is: {found[1]}", Level.CHANGE, found[0])

    def _first_that_works(self, name: str, services: Iterable[Service]) -> tuple[dict[str, str], str] | None:
        """Fetch records with each item of ``services`` in turn, until an item works.

        All later test requests use this item. The result has two parts: the settings in which the working item differs
        from the settings before this call, and the description of FACEKI's answer. If no item works, or if the
        remaining requests are reserved for the filters (see :data:`_NEEDED_RECORDS_REQUESTS`), the result is ``None``.

        :param name: Filter of the records, such as ``request_id``.
        :param services: Items to try. Each item contains all settings of an installation, such as paths and field
            names.
        """
        configured = self._client.service
        for service in dict.fromkeys(services):
            if service == configured:
                continue
            if self._records_requests > MAX_RECORDS_REQUESTS - _NEEDED_RECORDS_REQUESTS:
                return None
            outcome = self._fetch(name, service)
            if outcome.error is None:
                return self._use_service(outcome)
        return None

    def _use_service(self, outcome: _Outcome) -> tuple[dict[str, str], str]:
        """Use the settings of a successful test request for all later test requests.

        The result has two parts: the settings that this method has changed, with their new values, and the description
        of FACEKI's answer.
        """
        configured = self._client.service
        self._client = replace(self._client, service=outcome.service)
        return _differences(configured, outcome.service), outcome.shape

    def _fetch(self, name: str, service: Service) -> _Outcome:
        value = self._unused_identifier if name == "record_identifier" else str(uuid.uuid4())
        endpoint = FetchRecords(**{name: value})
        before = self._recorder.sent
        outcome = self._probe(endpoint, service)
        if isinstance(outcome.error, UnexpectedResponseError) and NULL_ADVICE in outcome.error.message:
            # FACEKI has no record with the random identifier of the request. So the null in FACEKI's answer means "no
            # record". The request is sent again with the setting that gives null this meaning.
            outcome = self._probe(endpoint, replace(service, null_result="no_record"))
        self._records_requests += self._recorder.sent - before
        if outcome.result:
            # FACEKI has no record with the random identifier of the request. The answer contains records, so FACEKI has
            # ignored the filter.
            ignored = UnexpectedResponseError(
                "FACEKI returned records of other verifications, so it does not know the filter"
            )
            return replace(outcome, error=ignored)
        # The filter ``link`` of the request contains a random link id. A LinkError means that FACEKI looked for this
        # link and did not find it. So FACEKI knows the filter, and the test is successful.
        return replace(outcome, error=None) if isinstance(outcome.error, LinkError) else outcome

    def _probe(self, endpoint: Endpoint[object], service: Service) -> _Outcome:
        client = replace(self._client, service=service)
        try:
            result = client.call(endpoint)
        except FacekiError as error:
            return _Outcome(None, error, self._recorder.last, service)
        return _Outcome(result, None, self._recorder.last, service)

    def _wrong_token(self) -> Finding:
        made_up = AccessToken(f"made-up-{secrets.token_hex(16)}", time.time(), 3600.0)
        client = replace(self._client, token=made_up)
        try:
            client.call(FetchRecords(record_identifier=self._unused_identifier))
        except AuthenticationError:
            return _WRONG_TOKEN(f"recognised: {self._recorder.last}")
        except FacekiError as error:
            answer = f"not recognised as a refused token ({_error_text(error)}): {self._recorder.last}"
            return _WRONG_TOKEN(answer, Level.OPEN)
        return _WRONG_TOKEN(f"accepted: {self._recorder.last}", Level.OPEN)

    def _rules(self) -> Finding:
        if self._workflow_id is None:
            return _RULES("the Connection has no default workflow", Level.OPEN)
        try:
            endpoint = GetWorkflowRules(workflow_id=self._workflow_id)
        except ValidationError:
            return _RULES(_NO_WORKFLOW_ID, Level.CHANGE, _WORKFLOW_SETTING)
        outcome = self._probe(endpoint, self._client.service)
        if isinstance(outcome.result, WorkflowRules):
            kept = (
                "stored"
                if outcome.result.stores_records
                else "not stored, so no verification can be looked up"
            )
            return _RULES(
                f"{len(outcome.result.documents)} kinds of document; records are {kept}; {outcome.shape}"
            )
        if isinstance(outcome.error, WorkflowError):
            answer = f"FACEKI does not know it: {_error_text(outcome.error)}"
            return _RULES(answer, Level.CHANGE, _WORKFLOW_SETTING)
        error = _error_text(outcome.error) if outcome.error else "nothing"
        return _RULES(f"not found out: {error}; {outcome.shape}", Level.OPEN)

    def _report(self) -> Finding:
        if self._client.service.pdf_report_path is None:
            return _REPORT("pdf_report_path is not set; needed for PDF reports only", Level.OPEN)
        configured, first = self._client.service, None
        for method in dict.fromkeys((configured.pdf_report_method, "GET", "POST")):
            service = replace(configured, pdf_report_method=method)
            outcome = self._probe(FetchPdfReport(str(uuid.uuid4())), service)
            first = first or outcome
            error = outcome.error
            is_route = error is None or (isinstance(error, NotFoundError) and error.is_stated)
            if is_route and service == configured:
                return _REPORT(f"as configured; no such report is: {outcome.shape}")
            if is_route:
                self._client = replace(self._client, service=service)
                answer = f"by {method}; no such report is: {outcome.shape}"
                return _REPORT(answer, Level.CHANGE, _differences(configured, service))
        return _REPORT(f"not found out: {first.shape if first else ''}", Level.OPEN)

    def _link(self) -> Finding:
        if self._workflow_id is None:
            return _LINK("not made: the Connection has no default workflow", Level.OPEN)
        try:
            endpoint = GenerateKycLink(
                workflow_id=self._workflow_id, record_identifier=self._unused_identifier, expires_in_minutes=1
            )
        except ValidationError:
            return _LINK(f"not made: {_NO_WORKFLOW_ID}", Level.OPEN)
        outcome = self._probe(endpoint, self._client.service)
        if outcome.error is not None:
            return _LINK(f"none: {_error_text(outcome.error)}; {outcome.shape}", Level.OPEN)
        url = getattr(outcome.result, "url", None)
        host = f"a page at {urlsplit(url).hostname}" if url else "no URL of a page"
        return _LINK(f"made, with {host}; {outcome.shape}")


def _found_by(name: str) -> partial[Finding]:
    return partial(
        Finding,
        f"How are records found by {name}?",
        "FACEKI's documents and SDKs spell the filters differently",
    )


def _setting_row(
    question: partial[Finding], changes: Mapping[str, str], names: Iterable[str], shape: str = ""
) -> Finding:
    """Return the finding (question and answer) about some settings of the Airflow Connection.

    If ``changes`` contains at least one of these settings, the finding has the level ``CHANGE``, otherwise ``OK``.

    :param question: The question that the finding answers.
    :param changes: All settings that the user has to change, with their new values.
    :param names: Names of the settings that the finding is about.
    :param shape: Description of the answer that FACEKI sends if it has no record. It becomes a part of the finding. If
        it is empty, the finding contains no description.
    """
    settings = {name: changes[name] for name in names if name in changes}
    answer = "otherwise" if settings else "as configured"
    answer += f"; nothing found is: {shape}" if shape else ""
    return question(answer, Level.CHANGE if settings else Level.OK, settings)


def _differences(before: Service, after: Service) -> dict[str, str]:
    """Return the settings that are different in ``before`` and ``after``, with their values from ``after``.

    The values have the form that the Airflow Connection needs. For example, an empty value becomes ``none``.
    """
    changed = {
        each.name: getattr(after, each.name)
        for each in fields(Service)
        if getattr(after, each.name) != getattr(before, each.name)
    }
    return {name: value or "none" for name, value in changed.items()}


def _no_form(tried: list[tuple[AuthFlow, FacekiError]]) -> str:
    refusals = ", ".join(f"{flow.value}: {_status(error)}" for flow, error in tried)
    known = [error for _, error in tried if not isinstance(error, ConfigurationError)]
    advice = "check Client ID and Client Secret" if known else "check the API base URL"
    if any(isinstance(error, UnexpectedResponseError) for error in known):
        advice = "check the API base URL"
    return f"none ({refusals}); {advice}"


def _status(error: FacekiError) -> str:
    facts = [type(error).__name__]
    facts += [f"HTTP {error.http_status}"] if error.http_status else []
    facts += [f"code {error.code}"] if error.code is not None else []
    return " ".join(facts)


def _error_text(error: FacekiError) -> str:
    # The output of the check must not contain ids. str(error) contains FACEKI's request id and the Connection id.
    # Therefore only the error's message, class, status and code are used.
    message = error.message.replace(f"; {CHECK_ADVICE}", "")
    return f"{message} ({_status(error)})"


def describe_response(response: HttpResponse) -> str:
    """Return a text with the status, the media type and the JSON keys of an HTTP response."""
    media_type = response.headers.get("content-type", "no content type").partition(";")[0].strip().lower()
    parts = [
        f"HTTP {response.status}",
        media_type if re.fullmatch(r"[\w.+/-]{1,60}", media_type) else "another type",
    ]
    if response.file is not None:
        return ", ".join([*parts, "a PDF"])
    try:
        document = parse_json(response.body) if response.body.strip() else None
    except ValueError:
        return ", ".join([*parts, f"{len(response.body)} bytes that are not JSON"])
    if isinstance(document, dict):
        parts.append(f"{_envelope(document)} with {describe_keys(document)}")
        parts += [f"{name}: {describe(document[name])}" for name in ("result", "data") if name in document]
    else:
        parts.append(describe(document) if response.body.strip() else "empty")
    return ", ".join(parts)


def _envelope(document: Mapping[str, object]) -> str:
    if "responseCode" in document:
        return "legacy envelope"
    if "statusCode" in document:
        return "validation envelope"
    if "status" in document and "code" in document:
        return "v3 envelope"
    return "error list" if "errors" in document else "no known envelope"

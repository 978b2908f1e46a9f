# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Access tokens: how one is asked for, how long it is good, who may fetch the next."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from airflow_provider_faceki.api.errors import (
    AuthenticationError,
    ConfigurationError,
    FacekiError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import JSON_HEADERS, Header, HttpRequest, Json, json_body

#: Seconds before its end at which a token counts as used up, so that none expires on its way to FACEKI.
RENEWAL_MARGIN = 60.0
#: Tokens that live shorter than this many seconds are renewed this share of their life before the end:
#: a minute would eat most of a short life. The two rules meet at exactly this lifetime.
SHORT_LIFETIME = 600.0
SHORT_LIFETIME_MARGIN = 0.1
#: Lifetime in seconds where the answer gives none (documented default:
#: https://docs.faceki.com/api-integration/verification-apis/authentication ).
DEFAULT_LIFETIME = 3600.0

# What RFC 6750 allows in a bearer token, at a length that fits into a header.
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]{1,8192}=*")


class AuthFlow(StrEnum):
    """The six forms of the token request that FACEKI documents or ships; no source says which still work.

    https://docs.faceki.com/api-integration/verification-apis/authentication prints four of them in its versions,
    https://kycdocv2.faceki.com the GET with headers, and FACEKI's SDKs send the query.
    """

    GENERATE_TOKEN = "generate_token"  # noqa: S105 - the name of a form, not a password
    GENERATE_TOKEN_HEADERS = "generate_token_headers"  # noqa: S105
    ACCESS_TOKEN_BODY = "access_token_body"  # noqa: S105
    ACCESS_TOKEN_HEADERS = "access_token_headers"  # noqa: S105
    ACCESS_TOKEN_GET_HEADERS = "access_token_get_headers"  # noqa: S105
    ACCESS_TOKEN_QUERY = "access_token_query"  # noqa: S105

    @property
    def sends_headers(self) -> bool:
        """Whether client id and secret travel as HTTP headers, which carry ASCII only."""
        return self in {
            AuthFlow.GENERATE_TOKEN_HEADERS,
            AuthFlow.ACCESS_TOKEN_HEADERS,
            AuthFlow.ACCESS_TOKEN_GET_HEADERS,
        }

    @property
    def path(self) -> str:
        """Path of the request below the base URL."""
        is_new = self in {AuthFlow.GENERATE_TOKEN, AuthFlow.GENERATE_TOKEN_HEADERS}
        return "/auth/api/generate-token" if is_new else "/auth/api/access-token"

    @property
    def method(self) -> str:
        """HTTP method of the request."""
        return "GET" if self in {AuthFlow.ACCESS_TOKEN_GET_HEADERS, AuthFlow.ACCESS_TOKEN_QUERY} else "POST"


@dataclass(frozen=True, slots=True, repr=False)
class AccessToken:
    """A bearer token and its life.

    :param value: The token itself.
    :param obtained_at: Unix time at which it was asked for.
    :param lifetime: Seconds it is good from then; 0 for once.
    """

    value: str
    obtained_at: float
    lifetime: float

    def usable(self, now: float) -> bool:
        """Whether it can be sent at Unix time ``now``; one from well in the future cannot."""
        margin = RENEWAL_MARGIN if self.lifetime >= SHORT_LIFETIME else self.lifetime * SHORT_LIFETIME_MARGIN
        return self.obtained_at - RENEWAL_MARGIN <= now < self.obtained_at + self.lifetime - margin

    def __repr__(self) -> str:
        return f"<AccessToken of {self.obtained_at:.0f} for {self.lifetime:.0f} s>"


class RefreshLock(Protocol):
    """The right to fetch the next token; others wait until it is released, or has lapsed."""

    def release(self) -> None:
        """Give it back. Never blocks, may be called twice."""


class TokenStore(Protocol):
    """Where the one token of an account lives. No method waits for another holder."""

    def peek(self) -> AccessToken | None:
        """Return the token that this process knows, without any I/O."""

    def read(self) -> AccessToken | None:
        """Return the newest token known to this process or its neighbours."""

    def try_lock(self, generation: int = 0) -> RefreshLock | None:
        """Take the right to fetch, or return ``None`` while another caller holds it.

        :param generation: How many holders have been waited for in vain. There are as many locks besides the first:
            a caller for whom the first has timed out takes the second, and fetches for all.
        """

    def set(self, token: AccessToken) -> None:
        """Make ``token`` the one that everybody gets."""

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token``, if it is still the one kept."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """The token request in one of its forms, and its answer.

    :param base_url: FACEKI's base URL.
    :param client_id: Client id from the FACEKI portal (Integrations → Client ID).
    :param client_secret: Its secret.
    :param flow: Which form; ``ACCESS_TOKEN_QUERY`` puts the secret into the URL, where proxies log it.
    """

    base_url: str
    client_id: str
    client_secret: str
    flow: AuthFlow = AuthFlow.GENERATE_TOKEN

    def fingerprint(self) -> str:
        """Return what tells this account from others, without being any part of it."""
        parts = (self.base_url, self.client_id, self.client_secret, self.flow.value)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def request(self) -> HttpRequest:
        """Return the request; it is idempotent, since it changes nothing but a counter."""
        headers: tuple[Header, ...] = JSON_HEADERS if self.flow.method == "POST" else JSON_HEADERS[1:]
        body: bytes | None = None
        query: tuple[tuple[str, str], ...] = ()
        if self.flow.sends_headers:
            headers = (*headers, ("clientid", self.client_id), ("clientsecret", self.client_secret))
            body = json_body({}) if self.flow.method == "POST" else None
        elif self.flow is AuthFlow.ACCESS_TOKEN_QUERY:
            query = (("clientId", self.client_id), ("clientSecret", self.client_secret))
        else:
            body = json_body({"clientId": self.client_id, "clientSecret": self.client_secret})
        return HttpRequest(
            self.flow.method,
            f"{self.base_url}{self.flow.path}",
            query=query,
            headers=headers,
            body=body,
            authenticated=False,
            idempotent=True,
        )

    def read(self, answer: Payload, asked_at: float) -> AccessToken:
        """Return the token of ``answer``.

        :raises UnexpectedResponseError: there is none in it that could be sent in a header.
        """
        result = answer.result if isinstance(answer.result, dict) else {}
        value = result.get("access_token")
        if not isinstance(value, str) or not _BEARER.fullmatch(value):
            raise UnexpectedResponseError(
                f"the token answer holds no usable access_token (auth_flow {self.flow.value!r})"
            )
        return AccessToken(value, asked_at, _lifetime(result.get("expires_in")))

    def map_error(self, error: ResponseError) -> FacekiError:
        """Say what a failed token request means for the Connection.

        What FACEKI answers to wrong credentials is undocumented, so any refusal of the request counts as one;
        a missing route is told apart by its 404 or 405.
        """
        if error.http_status in {404, 405} or isinstance(error, NotFoundError):
            kind: type[FacekiError] = ConfigurationError
            message = (
                f"FACEKI does not know the token request auth_flow={self.flow.value!r}; try another form"
            )
        elif isinstance(error, AuthenticationError | InvalidRequestError) or type(error) is ResponseError:
            kind = AuthenticationError
            message = (
                "FACEKI does not accept the client id and client secret "
                f"(or not in the form auth_flow={self.flow.value!r})"
            )
        else:
            return error
        return kind(message, code=error.code, code_name=error.code_name, http_status=error.http_status)


def _lifetime(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return DEFAULT_LIFETIME
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return DEFAULT_LIFETIME
    # Without any life left it serves the request that it was asked for, and no other.
    return max(seconds, 0.0) if math.isfinite(seconds) else DEFAULT_LIFETIME

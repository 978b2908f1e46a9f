# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The request for an access token, the lifetime of a token, and the interface of token stores."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_faceki.api.errors import (
    CHECK_ADVICE,
    AuthenticationError,
    ConfigurationError,
    FacekiError,
    InvalidRequestError,
    NotFoundError,
    ResponseError,
    ServiceError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.fields import field, find_objects, has_field
from airflow_provider_faceki.api.protocol.messages import JSON_HEADERS, Header, HttpRequest, Json, json_body
from airflow_provider_faceki.api.secrets import SecretBytes, SecretText
from airflow_provider_faceki.api.service import AuthFlow
from airflow_provider_faceki.api.values import as_number

#: A token is not used in this number of seconds before its expiry. Otherwise the token could expire on its way to
#: FACEKI. If the lifetime is below ten minutes, :data:`MAX_RENEWAL_MARGIN_FRACTION` reduces the number.
RENEWAL_MARGIN_SECONDS = 60.0
#: A token with a lifetime below ten minutes is not used when this fraction of its lifetime, or less, remains. For such
#: a short lifetime, :data:`RENEWAL_MARGIN_SECONDS` would be too long.
MAX_RENEWAL_MARGIN_FRACTION = 0.1
#: Lifetime of a token in seconds if FACEKI's answer to the token request contains no lifetime. The value is documented
#: at https://docs.faceki.com/api-integration/verification-apis/authentication .
DEFAULT_LIFETIME_SECONDS = 3600.0

# RFC 6750 allows these characters in a bearer token. The length is limited, because a longer token would not fit into
# an HTTP header.
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]{1,8192}=*")
_TOKEN_FIELDS = ("access_token", "token", "auth_token", "jwt", "id_token")
_MIN_BARE_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True, repr=False)
class AccessToken:
    """A bearer token with its lifetime.

    :param value: Text of the token, without the prefix ``Bearer``.
    :param obtained_at: Unix time of the token request.
    :param lifetime: Seconds after ``obtained_at`` until the token expires. A token with lifetime 0 is used for one
        request only.
    """

    value: str
    obtained_at: float
    lifetime: float

    def usable(self, now: float) -> bool:
        """Return whether the token can be sent at Unix time ``now``.

        Shortly before the token expires, the result is ``False``; see :data:`RENEWAL_MARGIN_SECONDS`. The result is
        also ``False`` if ``obtained_at`` is more than a minute later than ``now``. In this case, the clock of this
        host, or of the host that fetched the token, is wrong.
        """
        margin = min(RENEWAL_MARGIN_SECONDS, self.lifetime * MAX_RENEWAL_MARGIN_FRACTION)
        return self.obtained_at - RENEWAL_MARGIN_SECONDS <= now < self.obtained_at + self.lifetime - margin

    def __repr__(self) -> str:
        return f"<AccessToken of {self.obtained_at:.0f} for {self.lifetime:.0f} s>"


class RefreshLock(Protocol):
    """Lock whose owner fetches the next access token. The other callers wait until the lock is released or expires."""

    def release(self) -> None:
        """Release the lock. This method does not block an event loop. A second call does nothing."""


class TokenStore(Protocol):
    """Store for the access token of one account, with locks for the renewal of the token.

    The owner of a refresh lock fetches the next token. No method of the store waits until another caller releases a
    lock.
    """

    def peek(self) -> AccessToken | None:
        """Return the token in the memory of this process, or ``None`` if there is no token. This method does no I/O."""

    def read(self) -> AccessToken | None:
        """Return the newest token that any process stored, or ``None``. This method possibly does I/O."""

    def try_lock(self, generation: int = 0) -> RefreshLock | None:
        """Try to acquire a refresh lock. If other callers own all locks that are tried, return ``None``.

        There are several locks, numbered from 0, because the owner of a lock possibly hangs. At first, all callers try
        lock 0 only. If lock 0 is not released within ``MAX_LOCK_WAIT_SECONDS``, the waiting callers also try lock 1.
        One of them acquires lock 1 and fetches the token for all callers.

        :param generation: Number of the last lock to try. The method tries the locks from 0 to this number.
        """

    def set(self, token: AccessToken) -> None:
        """Store ``token`` as the token that all callers use from now on."""

    def invalidate(self, token: AccessToken) -> None:
        """Remove ``token`` if it is still the stored token."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """The request for an access token in one of the forms of :class:`AuthFlow`, and the interpretation of its answer.

    :param base_url: Base URL of the FACEKI installation.
    :param client_id: Client id from the FACEKI portal (Integrations → Client ID).
    :param client_secret: Client secret from the same page of the FACEKI portal.
    :param flow: Form of the request. Avoid ``ACCESS_TOKEN_QUERY`` if possible, because this form puts the secret into
        the URL, and proxies log URLs.
    """

    base_url: str
    client_id: str
    client_secret: str
    flow: AuthFlow = AuthFlow.GENERATE_TOKEN

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_secret", SecretText(self.client_secret))

    def fingerprint(self) -> str:
        """Return a hash of the account and of the kind of token request (``auth_flow``).

        Each process finds its token stores by a key that contains this hash. Therefore clients share a token only if
        they have the same account and the same kind of token request.
        """
        parts = (self.base_url, self.client_id, self.client_secret, self.flow.value)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def request(self) -> HttpRequest:
        """Return the HTTP request for a token.

        The request is idempotent, so it can be sent again if the answer is lost.
        """
        headers: tuple[Header, ...] = JSON_HEADERS if self.flow.method == "POST" else JSON_HEADERS[1:]
        body: SecretBytes | None = None
        query: tuple[tuple[str, str], ...] = ()
        if self.flow.sends_headers:
            headers = (*headers, ("clientid", self.client_id), ("clientsecret", self.client_secret))
            body = SecretBytes(json_body({})) if self.flow.method == "POST" else None
        elif self.flow is AuthFlow.ACCESS_TOKEN_QUERY:
            query = (("clientId", self.client_id), ("clientSecret", self.client_secret))
        else:
            body = SecretBytes(json_body({"clientId": self.client_id, "clientSecret": self.client_secret}))
        return HttpRequest(
            self.flow.method,
            f"{self.base_url}{self.flow.path}",
            query=query,
            headers=headers,
            body=body,
            authenticated=False,
            idempotent=True,
        )

    def read(self, answer: Payload, requested_at: float) -> AccessToken:
        """Return the access token that FACEKI's answer contains.

        :param answer: Content of the answer to the token request.
        :param requested_at: Unix time of the token request.
        :raises AuthenticationError: if the answer is a validation error for the credentials.
        :raises UnexpectedResponseError: if the answer contains no token that can be sent in a header.
        """
        # Error trackers report the local variables of the function that raises an error. The local variables of
        # `_find_token` possibly show the text of a token. The local variables of this method do not show it. Therefore
        # the error is raised here, and not in `_find_token`.
        token = _find_token(answer.document, requested_at)
        if token is not None:
            return token
        if _names_credentials(answer.document):
            raise AuthenticationError(self._not_accepted(), http_status=answer.status)
        raise UnexpectedResponseError(
            "the answer to the token request contains no usable access_token (auth_flow "
            f"{self.flow.value!r}); it contains {answer.found}. Check the API base URL",
            http_status=answer.status,
        )

    def map_error(self, error: ResponseError) -> FacekiError:
        """Return the error to raise after a failed token request.

        * After HTTP 404, HTTP 405 or one of FACEKI's codes for "not found", the result is a
          :class:`ConfigurationError`, because the route of the token request does not exist.
        * If FACEKI rejects the request with any other answer, the result is an :class:`AuthenticationError`, because
          FACEKI does not document its answer to wrong credentials.
        * Any other error, such as a failure of FACEKI's server, keeps its class.

        :param error: Error of the token request.
        """
        is_refusal = (
            isinstance(error, AuthenticationError | InvalidRequestError) or type(error) is ResponseError
        )
        if error.http_status in {404, 405} or isinstance(error, NotFoundError):
            kind: type[FacekiError] = ConfigurationError
            message = (
                f"FACEKI does not know the token request auth_flow={self.flow.value!r}; try another form, and check "
                f"the API base URL; {CHECK_ADVICE}"
            )
        elif is_refusal or (isinstance(error, UnexpectedResponseError) and error.is_stated):
            kind, message = AuthenticationError, self._not_accepted()
        else:
            if isinstance(error, ServiceError):
                error.message += (
                    f" at the token request (auth_flow={self.flow.value!r}); some services give this "
                    "answer to wrong credentials"
                )
            return error
        return kind(message, code=error.code, code_name=error.code_name, http_status=error.http_status)

    def _not_accepted(self) -> str:
        return (
            "FACEKI does not accept the client id and client secret, or not with "
            f"auth_flow={self.flow.value!r}"
        )


def _find_token(document: Json, requested_at: float) -> AccessToken | None:
    found = find_objects(document, lambda item: _token_text(item) is not None)
    outer = document if isinstance(document, dict) else {}
    holder = found[0] if found else {}
    value = _token_text(holder) or _bare_token(field(outer, "data", "result"))
    if value is None:
        return None
    names = ("expires_in", "expires", "ttl", "lifetime", "expires_in_seconds")
    expires = field(holder, *names)
    lifetime = _lifetime(expires if expires is not None else field(outer, *names))
    return AccessToken(SecretText(value), requested_at, lifetime)


def _token_text(document: Mapping[str, Json]) -> str | None:
    return _bearer(field(document, *_TOKEN_FIELDS))


def _bearer(value: Json) -> str | None:
    """Return ``value`` as a token without the prefix ``Bearer``, or ``None`` if a header cannot contain it."""
    if not isinstance(value, str):
        return None
    text = re.sub(r"^bearer ", "", value, flags=re.IGNORECASE)
    return text if _BEARER.fullmatch(text) else None


def _bare_token(value: Json) -> str | None:
    """Return the value of the field ``data`` or ``result`` as a token, or ``None``.

    The names ``data`` and ``result`` do not say that the value is a token. A short text is possibly something else,
    such as a message. Therefore only a long text is accepted as a token.
    """
    token = _bearer(value)
    return token if token is not None and len(token) >= _MIN_BARE_TOKEN_LENGTH else None


def _names_credentials(document: Json) -> bool:
    """Return whether the answer is a validation error for the credentials, such as ``{"clientSecret": ""}``.

    FACEKI documents this format. Its keys are the names of the invalid fields.
    """
    return isinstance(document, dict) and has_field(document, "clientId", "clientSecret")


def _lifetime(value: Json) -> float:
    seconds = as_number(value)
    # A negative lifetime becomes 0. A token with lifetime 0 is used only for the request for which it was fetched.
    return DEFAULT_LIFETIME_SECONDS if seconds is None else max(seconds, 0.0)

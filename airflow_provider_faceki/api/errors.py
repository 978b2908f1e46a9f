# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The errors of FACEKI, as a tree drawn by what has to be done next.

::

    FacekiError
    ├── ConfigurationError        the Connection or a setting is wrong: fix it there
    ├── ValidationError           an argument of the call is wrong: fix the call
    ├── TransportError            nothing came back
    │   ├── ConnectError          … and nothing left: try again
    │   ├── TlsError              … and nothing left: fix certificates (verify, CA bundle)
    │   └── ResponseLostError     … but the request may have arrived: look it up before sending again
    ├── OutcomeUnknownError       sent, maybe billed, and not to be found: look it up before sending again
    └── ResponseError             FACEKI answered with a failure
        ├── AuthenticationError   it does not know these credentials, or refuses the token
        ├── InvalidRequestError   the request itself is wrong: fix the call
        ├── WorkflowError         the workflow is unknown or has no rules: fix it in the FACEKI portal
        ├── QuotaError            no credit, or a limit is reached: top up, then go on
        ├── LinkError             the link is unknown, expired or used up: make another
        ├── NotFoundError         no such record (yet)
        ├── VerificationError     this person or image did not pass: a result, rarely a fault
        ├── RateLimitError        too many requests: wait; nothing was done
        ├── ServiceError          FACEKI failed: try again if the call is idempotent
        └── UnexpectedResponseError  the answer is not understood: likely not FACEKI, or a changed FACEKI

No message, ``repr`` or pickle of these holds a body, a header, a URL's query, a secret or a person: they are
built from machine-readable fields only.
"""

from __future__ import annotations

from typing import Self

from airflow_provider_faceki.api.secrets import SecretText


class FacekiError(Exception):
    """Base of all errors of FACEKI.

    :param message: What happened and what to do, free of secrets and personal data.
    :param code: FACEKI's own code (``code``, ``responseCode`` or ``statusCode`` of the answer), if it gave
        one.
    :param code_name: The code's published name, if known.
    :param http_status: HTTP status of the answer, if one came.
    :param request_id: FACEKI's ``requestId`` for the verification, if the answer carried one.
    :param retry_after: Seconds to wait that the service asks for (``Retry-After``).
    :param is_ambiguous: Whether the service may have acted on the request.
    :param conn_id: Airflow Connection id, set when raised through the hook.

    ``idempotent`` is ``False`` where the failed call does or costs the same again when it is made again, and leaves
    nothing that could be looked up. If such an error also :attr:`is_ambiguous`, only a person may repeat the call.
    """

    #: Whether the same request, sent again later, may succeed without any change.
    is_transient: bool = False
    #: What :attr:`is_ambiguous` is where the raiser does not know better.
    _is_ambiguous_default: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        code_name: str | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        is_ambiguous: bool | None = None,
        conn_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.code_name = code_name
        self.http_status = http_status
        self.request_id = request_id
        self.retry_after = retry_after
        self.is_ambiguous = self._is_ambiguous_default if is_ambiguous is None else is_ambiguous
        self.conn_id = conn_id
        self.idempotent = True

    @property
    def needs_consent(self) -> bool:
        """Whether a person has to decide if the call is made again: it may have been made, and is not idempotent."""
        return self.is_ambiguous and not self.idempotent

    def with_conn_id(self, conn_id: str) -> Self:
        """Return this error, naming the Airflow Connection that it concerns."""
        self.conn_id = conn_id
        return self

    def __str__(self) -> str:
        facts = [
            f"connection {self.conn_id!r}" if self.conn_id is not None else None,
            f"FACEKI code {self.code} {self.code_name or ''}".rstrip() if self.code is not None else None,
            f"HTTP {self.http_status}" if self.http_status is not None else None,
            f"request id {self.request_id}" if self.request_id is not None else None,
        ]
        details = ", ".join(fact for fact in facts if fact)
        # Not in square brackets: Airflow's command line takes those for markup and drops them.
        return f"{self.message} ({details})" if details else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle shows what repr hides, and Airflow may store one.
        state = {name: value for name, value in self.__dict__.items() if not isinstance(value, SecretText)}
        return (_rebuild, (type(self), self.message, state))


def _rebuild(kind: type[FacekiError], message: str, state: dict[str, object]) -> FacekiError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class ConfigurationError(FacekiError):
    """The Connection or a setting cannot work as it is."""


class ValidationError(FacekiError, ValueError):
    """An argument of the call cannot work; nothing was sent."""


class TransportError(FacekiError):
    """No answer came back."""

    is_transient = True


class ConnectError(TransportError):
    """No connection could be made, so nothing was sent."""


class TlsError(TransportError):
    """The server's certificate was not accepted, so nothing was sent."""

    is_transient = False


class ResponseLostError(TransportError):
    """The request, or a part of it, may have left, and no whole answer came back."""

    _is_ambiguous_default = True


class OutcomeUnknownError(FacekiError):
    """A charged call was sent, its answer was lost, and nothing tells whether FACEKI acted on it."""

    _is_ambiguous_default = True


class ResponseError(FacekiError):
    """FACEKI answered, and the answer is not a success."""

    #: Whether the answer's document states the failure in a form of FACEKI's; else only the HTTP status tells it.
    is_stated: bool = False
    #: Whether the answer says, in whatever form, that the access token is not accepted.
    refuses_token: bool = False
    #: Whether a token that is not accepted would explain the answer, among other things.
    may_refuse_token: bool = False
    #: The caller's identifier that the answer holds, if any: it tells whose failure this is.
    record_identifier: str | None = None
    #: Where a redirect leads; its ``repr`` shows nothing.
    location: SecretText | None = None


class AuthenticationError(ResponseError):
    """FACEKI does not accept the client id and secret, or refuses a token it has just issued."""


class InvalidRequestError(ResponseError):
    """FACEKI found the request itself wrong, and so did nothing."""


class WorkflowError(ResponseError):
    """The workflow is unknown to FACEKI or has no rules."""


class QuotaError(ResponseError):
    """The wallet is empty (5003) or a verification limit is reached (8017)."""


class LinkError(ResponseError):
    """The verification link is unknown (8014), expired (8015), used up (5009), or could not be used."""


class NotFoundError(ResponseError):
    """FACEKI has no such record: code 8013, or HTTP or code 404.

    Unless it :attr:`is_stated`, a 404 may as well come from a wrong address or from a proxy.
    """


class VerificationError(ResponseError):
    """FACEKI ran the check and the person or an image did not pass."""

    _is_ambiguous_default = True


class RateLimitError(ResponseError):
    """Too many requests (HTTP 429); FACEKI did not act on this one."""

    is_transient = True


class ServiceError(ResponseError):
    """FACEKI, or something in front of it, failed while handling the request."""

    is_transient = True
    _is_ambiguous_default = True


class UnexpectedResponseError(ResponseError):
    """The answer has no form that FACEKI is known to give."""

    is_transient = True
    _is_ambiguous_default = True

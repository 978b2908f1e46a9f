# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The error classes of calls to FACEKI.

Each line of the tree shows a class, the problem and, after the colon, the recommended reaction of the caller::

    FacekiError
    ├── ConfigurationError        the Airflow Connection or one of its settings is wrong: correct the setting
    ├── ValidationError           an argument is invalid or a file cannot be sent: correct the argument or the file
    ├── ChargeLimitError          your own limit of charged calls is reached: raise the limit, then continue
    ├── TransportError            no complete answer was received: the reaction depends on the subclass
    │   ├── ConnectError          no connection was established and no request was sent: try again
    │   ├── TlsError              the server's certificate was not accepted: correct the CA bundle (setting verify)
    │   └── ResponseLostError     the request possibly arrived: look up the record before you send the request again
    ├── OutcomeUnknownError       the call was possibly billed, and no record was found: look up the record again later
    └── ResponseError             FACEKI answered with a failure
        ├── AuthenticationError   FACEKI does not accept the credentials or the token: correct the credentials
        ├── InvalidRequestError   the request itself is wrong: correct the call
        ├── WorkflowError         the workflow is unknown or has no rules: correct the workflow in the FACEKI portal
        ├── QuotaError            the account has no credit, or a limit is reached: buy credit, then continue
        ├── LinkError             the link is unknown, expired or used up: create a new link
        ├── NotFoundError         FACEKI has no such record: wait if the record is expected
        ├── VerificationError     the person or an image did not pass the check: treat this as a result
        ├── RateLimitError        FACEKI received too many requests and ignored this request: wait, then try again
        ├── ServiceError          FACEKI failed: try again if the call is idempotent
        └── UnexpectedResponseError  the answer has an unknown format or content: check the URL and the paths

The messages and the ``repr`` of these errors contain no body, header, URL query or secret. From FACEKI's answer, they
contain only the HTTP status, codes and their names, ids that FACEKI assigns, and JSON keys that look like field names.

A pickle of an error contains all attributes of the error except the secret attributes. Therefore a pickle can contain
personal data: the attribute ``record_identifier`` is the caller's own identifier, which is possibly personal data.
"""

from __future__ import annotations

from typing import Self

from airflow_provider_faceki.api.secrets import SecretText

#: Advice that is appended to an error or log text if a wrong setting of the Airflow Connection is a possible cause.
CHECK_ADVICE = "`python -m airflow_provider_faceki.check` finds out which setting differs"


class FacekiError(Exception):
    """Base class of all errors of calls to FACEKI.

    :param message: Description of the problem and of the remedy. It contains neither secrets nor personal data.
    :param code: FACEKI's own code, if it is known. FACEKI sends it in a field such as ``code``, ``responseCode`` or
        ``statusCode``.
    :param code_name: Name of the code, if it is known: the published name, or a name that FACEKI's answer contains.
    :param http_status: HTTP status of the answer, if it is known.
    :param request_id: FACEKI's ``requestId`` of the verification, if it is known.
    :param retry_after: Seconds to wait before the next request, if the answer has the header ``Retry-After``.
    :param is_ambiguous: Whether FACEKI has possibly acted on the request. With ``None``, the default of the error class
        is used.
    :param conn_id: Id of the Airflow Connection. The Airflow hook sets it.

    The attribute ``idempotent`` has a meaning only for a failed :class:`RawCall`. It is ``False`` if a second call
    could have a second effect or cost. For the errors of all other calls, it is always ``True``.
    """

    #: Whether the same request can succeed if it is sent again later without any change.
    is_transient: bool = False
    #: Default of :attr:`is_ambiguous` (whether FACEKI has possibly acted on the request) for this class.
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
        """Whether a human has to decide if the call is sent again, because the provider must not repeat the call.

        The value is true if FACEKI possibly acted on the call (``is_ambiguous``), and if a second call could have a
        second effect or cost (``idempotent`` is false). Only a :class:`RawCall` can be such a call, because the
        provider cannot look up whether FACEKI acted on a :class:`RawCall`.
        """
        return self.is_ambiguous and not self.idempotent

    def with_conn_id(self, conn_id: str) -> Self:
        """Set the id of the Airflow Connection and return this error."""
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
        # The details of the error, such as the HTTP status, are in round brackets, because Airflow's command line
        # removes square brackets as markup.
        return f"{self.message} ({details})" if details else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # A SecretText is a text whose `repr` hides the content. A pickle would contain the content in plain text, and
        # Airflow possibly stores the pickle. Therefore attributes of this type are left out of the pickle.
        state = {name: value for name, value in self.__dict__.items() if not isinstance(value, SecretText)}
        return (type(self), (self.message,), state)


class ConfigurationError(FacekiError):
    """The Airflow Connection or one of its settings is invalid."""


class ValidationError(FacekiError, ValueError):
    """An argument is invalid, or a file cannot be sent. FACEKI received no complete request, so FACEKI did not act."""


class ChargeLimitError(FacekiError):
    """Your own limit of charged calls is reached. The call was not sent."""


class TransportError(FacekiError):
    """No complete answer was received."""

    is_transient = True


class ConnectError(TransportError):
    """The connection could not be established, so no request was sent."""


class TlsError(TransportError):
    """The server's certificate was not accepted, so no request was sent."""

    is_transient = False


class ResponseLostError(TransportError):
    """The request was possibly sent, wholly or in part, and no complete answer was received."""

    _is_ambiguous_default = True


class OutcomeUnknownError(FacekiError):
    """A charged call was sent, its answer was lost or is unusable, and no record shows whether FACEKI acted on it."""

    _is_ambiguous_default = True


class ResponseError(FacekiError):
    """FACEKI answered, and the answer reports a failure or cannot be used."""

    #: Whether the JSON body of the answer reports the failure. Otherwise, for example if only the HTTP status reports
    #: the failure, the value is ``False``. Web servers and proxies also send JSON with HTTP status 404. Therefore the
    #: value for a :class:`NotFoundError` is ``True`` only if the body has code 8013, or if the body is one of FACEKI's
    #: own JSON formats (envelopes) and contains a code. The module :mod:`.protocol.envelope` describes the envelopes.
    is_stated: bool = False
    #: Whether a refused access token is a possible cause of the failure. In this case, the client can send the request
    #: once more with a new token.
    may_refuse_token: bool = False
    #: The caller's own identifier of the failed verification, or ``None`` if the answer does not contain it.
    record_identifier: str | None = None
    #: Target of a redirect, as an absolute or relative URL. Its ``repr`` hides the URL.
    location: SecretText | None = None


class AuthenticationError(ResponseError):
    """FACEKI does not accept the credentials or the access token, or does not allow this call with them."""


class InvalidRequestError(ResponseError):
    """FACEKI reports that the request itself is wrong, and did not act on it."""


class WorkflowError(ResponseError):
    """The workflow is unknown to FACEKI, or the workflow has no rules."""


class QuotaError(ResponseError):
    """The FACEKI account has no credit (code 5003), or a limit of verifications is reached (code 8017)."""


class LinkError(ResponseError):
    """The verification link is unknown (code 8014), expired (code 8015), used up (code 5009) or otherwise unusable."""


class NotFoundError(ResponseError):
    """FACEKI has no such record: the answer has code 8013, code 404 or HTTP status 404, or the answer is an empty list.

    If :attr:`is_stated` is ``False``, the answer does not prove that FACEKI has no such record. For example, a wrong
    URL or a proxy can cause an HTTP status 404 without a code.
    """


class VerificationError(ResponseError):
    """FACEKI ran the check, and the person or an image did not pass."""

    _is_ambiguous_default = True


class RateLimitError(ResponseError):
    """Too many requests (HTTP status or code 429). FACEKI did not act on this request."""

    is_transient = True


class ServiceError(ResponseError):
    """FACEKI, or a gateway in front of it, failed while it handled the request."""

    is_transient = True
    _is_ambiguous_default = True


class UnexpectedResponseError(ResponseError):
    """The answer has an unknown format, or contains something else than requested, such as other records."""

    is_transient = True
    _is_ambiguous_default = True

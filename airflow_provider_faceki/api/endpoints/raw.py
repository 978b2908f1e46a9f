# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A generic call for the routes of FACEKI's API for which this package has no class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlencode

from airflow_provider_faceki.api.arguments import (
    check_bool,
    check_choice,
    check_files,
    check_method,
    check_part_names,
    check_path,
    check_scalars,
)
from airflow_provider_faceki.api.errors import FacekiError, ValidationError
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.messages import (
    ACCEPT_JSON,
    JSON_HEADERS,
    Header,
    HttpRequest,
    Json,
    json_body,
)
from airflow_provider_faceki.api.protocol.session import AuthSession, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.uploads import File, Multipart

Scalars: TypeAlias = "Mapping[str, str | int | float | bool | None]"


@dataclass(frozen=True, slots=True, repr=False)
class RawCall:
    """Call any route of FACEKI's API, including the routes of the older V2 API.

    :param method: GET, HEAD, POST, PUT, PATCH or DELETE.
    :param path: Path below the base URL. It begins with ``/`` and has no query.
    :param params: Query parameters. Values are text, numbers or booleans. A parameter with the value ``None`` is not
        sent.
    :param json: Document to send as JSON.
    :param data: Form fields, with values as in ``params``. The fields are sent URL-encoded, or as
        ``multipart/form-data`` if there are ``files``. ``json`` cannot be combined with ``data`` or ``files``.
    :param idempotent: Whether the request is allowed to be sent twice. By default it is ``True`` for GET and HEAD. For
        other methods it is ``False``, because FACEKI has no idempotency keys and some calls cost credit.
    :param files: Mapping of part names to files, which are sent as ``multipart/form-data``. A value is a :class:`File`,
        or an :class:`Image` if the format of the file has to be checked.
    :param authenticated: Whether to send an access token. Use ``False`` for routes that need no token, such as the V2
        routes that receive the id of a verification link instead of a token.
    :raises ValidationError: if an argument is invalid.
    """

    method: str
    path: str
    params: Scalars | None = None
    json: Json = None
    data: Scalars | None = None
    idempotent: bool | None = None
    files: Mapping[str, File] = field(default_factory=dict)
    authenticated: bool = True

    def __post_init__(self) -> None:
        check_method("method", self.method)
        check_path("path", self.path)
        if self.json is not None and (self.data is not None or self.files):
            raise ValidationError(f"give json or {'data' if self.data is not None else 'files'}, not both")
        check_scalars("params", self.params)
        check_scalars("data", self.data)
        check_choice("idempotent", self.idempotent)
        check_bool("authenticated", self.authenticated)
        check_files("files", self.files)
        if self.files:
            check_part_names("data", self.data or {})
            if self.method.upper() not in {"POST", "PUT", "PATCH"}:
                raise ValidationError("files need the method POST, PUT or PATCH")

    def request(self, service: Service = FACEKI) -> HttpRequest:
        body, headers = self._body()
        return HttpRequest(
            self.method.upper(),
            f"{service.base_url}{self.path}",
            query=_query(self.params or {}),
            headers=headers,
            body=body,
            authenticated=self.authenticated,
            idempotent=self.is_idempotent,
            upload=bool(self.files),
        )

    @property
    def is_idempotent(self) -> bool:
        """Whether the request is allowed to be sent twice."""
        return self.method.upper() in {"GET", "HEAD"} if self.idempotent is None else self.idempotent

    @property
    def is_charged(self) -> bool:
        """Whether the call counts against the limit of charged calls (setting ``max_charged_calls`` of the Connection).

        It is unknown which routes FACEKI charges. Therefore every call counts, except a call that is allowed to be sent
        twice (see ``idempotent``). Such a call is assumed to cost nothing.
        """
        return not self.is_idempotent

    def steps(self, session: AuthSession) -> Steps[Json]:
        """Perform the call.

        If the call fails, the attribute ``idempotent`` of the error says whether the request is allowed to be sent
        twice.
        """
        try:
            return (yield from call_once(session, self))
        except FacekiError as error:
            error.idempotent = self.is_idempotent
            raise

    def _body(self) -> tuple[bytes | Multipart | None, tuple[Header, ...]]:
        if self.json is not None:
            try:
                return json_body(self.json), JSON_HEADERS
            except (TypeError, ValueError, RecursionError):
                pass
            # The caught error possibly contains personal data from the JSON document. If the ValidationError were
            # raised inside the except block, Python would store the caught error in its attribute `__context__`.
            # Therefore the ValidationError is raised outside the block.
            raise ValidationError("json contains a value that cannot be written as JSON")
        if self.files:
            body = Multipart(_query(self.data or {}), tuple(self.files.items()))
            return body, (("content-type", body.media_type), *ACCEPT_JSON)
        if self.data is not None:
            form = ("content-type", "application/x-www-form-urlencoded")
            return urlencode(_query(self.data)).encode(), (form, *ACCEPT_JSON)
        return None, ACCEPT_JSON

    def read(self, answer: Payload) -> Json:
        """Return the JSON content of the answer, without FACEKI's envelope (the outer object with status and code).

        If the answer has no body or is a PDF, the result is ``None``.
        """
        return answer.result

    def __repr__(self) -> str:
        return f"<RawCall {self.method}>"


def _query(params: Scalars) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in params.items()
        if value is not None
    )

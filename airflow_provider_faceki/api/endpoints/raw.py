# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Any call of FACEKI that has no endpoint of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from airflow_provider_faceki.api.arguments import check_choice, check_method, check_path, check_scalars
from airflow_provider_faceki.api.errors import FacekiError, ValidationError
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.http import ACCEPT_JSON, JSON_HEADERS, HttpRequest, Json, json_body
from airflow_provider_faceki.api.protocol.session import AuthSession, Steps, call_once
from airflow_provider_faceki.api.service import FACEKI, Service


@dataclass(frozen=True, slots=True, repr=False)
class RawCall:
    """Any authenticated call of FACEKI that has no endpoint of its own, the older V2 API included.

    :param method: GET, HEAD, POST, PUT, PATCH or DELETE.
    :param path: Path below the base URL, beginning with ``/`` and without a query.
    :param params: Query parameters; values are text, numbers or booleans, ``None`` is left out.
    :param json: Document to send as JSON.
    :param data: Form fields to send URL-encoded; like ``params``, and not together with ``json``.
    :param idempotent: Whether it may be sent twice. Default: ``True`` for GET and HEAD alone, since FACEKI
        knows no idempotency keys and some calls cost credit.
    :raises ValidationError: an argument cannot work.
    """

    method: str
    path: str
    params: Mapping[str, str | int | float | bool | None] | None = None
    json: Json = None
    data: Mapping[str, str | int | float | bool | None] | None = None
    idempotent: bool | None = None

    def __post_init__(self) -> None:
        check_method("method", self.method)
        check_path("path", self.path)
        if self.json is not None and self.data is not None:
            raise ValidationError("give json or data, not both")
        check_scalars("params", self.params)
        check_scalars("data", self.data)
        check_choice("idempotent", self.idempotent)

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return the request."""
        body, headers = self._body()
        return HttpRequest(
            self.method.upper(),
            f"{service.base_url}{self.path}",
            query=_query(self.params or {}),
            headers=headers,
            body=body,
            idempotent=self.is_idempotent,
        )

    @property
    def is_idempotent(self) -> bool:
        """Whether the request may be sent twice."""
        return self.method.upper() in {"GET", "HEAD"} if self.idempotent is None else self.idempotent

    def steps(self, account: AuthSession) -> Steps[Json]:
        """Perform the call; an error says whether it may be made again."""
        try:
            return (yield from call_once(account, self))
        except FacekiError as error:
            error.idempotent = self.is_idempotent
            raise

    def _body(self) -> tuple[bytes | None, tuple[tuple[str, str], ...]]:
        if self.json is not None:
            try:
                return json_body(self.json), JSON_HEADERS
            except (TypeError, ValueError, RecursionError):
                raise ValidationError("json holds something that JSON has no form for") from None
        if self.data is not None:
            form = ("content-type", "application/x-www-form-urlencoded")
            return urlencode(_query(self.data)).encode(), (form, *ACCEPT_JSON)
        return None, ACCEPT_JSON

    def read(self, answer: Payload) -> Json:
        """Return the unwrapped document."""
        return answer.result

    def __repr__(self) -> str:
        return f"<RawCall {self.method}>"


def _query(params: Mapping[str, str | int | float | bool | None]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _query_text(value)) for name, value in params.items() if value is not None)


def _query_text(value: str | int | float | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

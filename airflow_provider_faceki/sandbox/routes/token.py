# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The token call, which accepts six forms of the request.

Each form is in FACEKI's documentation or in an official SDK. The setting `token_forms` can disable each form.

Source: https://docs.faceki.com/api-integration/verification-apis/authentication
"""

from __future__ import annotations

import hmac

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.envelopes import (
    json_response,
    legacy,
    legacy_error,
    unauthorized,
    validation,
)
from airflow_provider_faceki.sandbox.messages import Request, Response


def generate(backend: Backend, request: Request) -> Response:
    return _by_headers(backend, request, "generate_token_headers") or _by_body(
        backend, request, "generate_token"
    )


def access(backend: Backend, request: Request) -> Response:
    return _by_headers(backend, request, "access_token_headers") or _by_body(
        backend, request, "access_token_body"
    )


def access_by_get(backend: Backend, request: Request) -> Response:
    query = request.query
    return _by_headers(backend, request, "access_token_get_headers") or _issue(
        backend, "access_token_query", query.get("clientId"), query.get("clientSecret")
    )


def _by_headers(backend: Backend, request: Request, form: str) -> Response | None:
    """Answer a request with the client id or the client secret in a header.

    If the request has neither header, return None.
    """
    client_id, client_secret = request.headers.get("clientid"), request.headers.get("clientsecret")
    if client_id is None and client_secret is None:
        return None
    return _issue(backend, form, client_id, client_secret)


def _by_body(backend: Backend, request: Request, form: str) -> Response:
    return _issue(backend, form, request.member("clientId"), request.member("clientSecret"))


def _issue(backend: Backend, form: str, client_id: object, client_secret: object) -> Response:
    settings = backend.settings
    if form not in settings.token_forms or form not in backend.dialect.token_forms:
        return unauthorized(404)
    if not isinstance(client_id, str) or not client_id:
        return validation("client id is required")
    if not isinstance(client_secret, str) or not client_secret:
        missing_by_field = settings.missing_secret == "field"
        return json_response({"clientSecret": ""}, 422) if missing_by_field else validation("")
    if not (_equal(client_id, settings.client_id) and _equal(client_secret, settings.client_secret)):
        # FACEKI does not document its answer to wrong credentials (assumption).
        return backend.dialect.wrong_credentials or legacy_error(1, 401)
    backend.accounts.tokens_by_form[form] += 1
    lifetime = settings.token_lifetime
    data: dict[str, object] = {
        "access_token": backend.tokens.issue(backend.clock.now(), lifetime),
        "expires_in": int(lifetime) if lifetime >= 1 else lifetime,
        "token_type": "Bearer",
    }
    if not settings.send_expires_in:
        del data["expires_in"]
    return legacy(data, settings.token_status)


def _equal(given: str, expected: str) -> bool:
    # A JSON text can contain a lone surrogate, which plain UTF-8 cannot encode.
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Who gets a token? Four ways of asking for one are documented or shipped; each can be switched off.

https://docs.faceki.com/api-integration/verification-apis/authentication
"""

from __future__ import annotations

import hmac

from airflow_provider_faceki.sandbox.answers import as_json, e1, e1_error, e3, refusal
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask


def generate(desk: Desk, ask: Ask) -> Answer:
    return _token(desk, "generate_token", ask.member("clientId"), ask.member("clientSecret"))


def access(desk: Desk, ask: Ask) -> Answer:
    """One URL, two ways: whoever puts either value into a header means the headers."""
    client_id, client_secret = ask.headers.get("clientid"), ask.headers.get("clientsecret")
    if client_id is not None or client_secret is not None:
        return _token(desk, "access_token_headers", client_id, client_secret)
    return _token(desk, "access_token_body", ask.member("clientId"), ask.member("clientSecret"))


def access_by_query(desk: Desk, ask: Ask) -> Answer:
    return _token(desk, "access_token_query", ask.query.get("clientId"), ask.query.get("clientSecret"))


def _token(desk: Desk, form: str, client_id: object, client_secret: object) -> Answer:
    settings = desk.settings
    if form not in settings.token_forms:
        return refusal(404)
    if not isinstance(client_id, str) or not client_id:
        return e3("client id is required")
    if not isinstance(client_secret, str) or not client_secret:
        return e3("") if settings.missing_secret == "message" else as_json({"clientSecret": ""}, 422)
    if not (_same(client_id, settings.client_id) and _same(client_secret, settings.client_secret)):
        # What FACEKI says to a wrong pair is not documented (assumption).
        return e1_error(1, 401)
    desk.counters.tokens_by_form[form] += 1
    lifetime = settings.token_lifetime
    data: dict[str, object] = {
        "access_token": desk.state.tokens.issue(desk.clock.now(), lifetime),
        "expires_in": int(lifetime) if lifetime >= 1 else lifetime,
        "token_type": "Bearer",
    }
    if not settings.send_expires_in:
        del data["expires_in"]
    return e1(data, settings.token_status)


def _same(given: str, right: str) -> bool:
    # JSON can spell half a character, which plain UTF-8 cannot.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))

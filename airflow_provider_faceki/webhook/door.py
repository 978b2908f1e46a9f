# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How is the token in a webhook's path kept out of every log?

A request's path is in its ASGI scope, one dictionary that all layers share. Airflow's access log (3.2 and later) and
uvicorn's (before) read it there when the request is over. So the first thing done with a request is to take
Connection id and token out of the path and to leave stars, and to take away the query, into which a token may have
been put by mistake: whoever looks afterwards, whichever log it is, has nothing to hide. What is in front of the API
server, such as a proxy, sees the path before; docs/webhooks.md says what to do there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: The route as the application knows it, and key of the scope under which what stood in its place is found.
ROUTE = "/webhook/{conn_id}/{token}"
ASKED = "faceki.asked"
_STARS = "***"


class Door:
    """ASGI middleware: the outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            _conceal(scope)
        await self.app(scope, receive, send)


def _conceal(scope: Scope) -> None:
    root = str(scope.get("root_path", ""))
    path = str(scope["path"]).removeprefix(root)
    parts = path.split("/")
    if len(parts) == ROUTE.count("/") + 1 and parts[1] == "webhook":
        scope[ASKED] = parts[2], parts[3]
        shown = f"{root}/webhook/{_STARS}/{_STARS}"
    else:
        # Mistyped, perhaps by one letter: the token may be in there.
        shown = f"{root}/{_STARS}"
    scope["path"] = shown
    scope["raw_path"] = shown.encode()
    scope["query_string"] = b""

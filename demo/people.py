# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""People who answer the links: sends what a browser would send."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow_provider_faceki.sandbox import SandboxProcess

#: Pause between the moment from which a person may act and the button, and between two buttons. Airflow's scheduler
#: fails a try whose trigger fires before the scheduler has heard of the deferral.
THINKING_SECONDS = 4.0


class People:
    """Presses buttons on the hosted pages.

    :param deciding: By record identifier, the buttons pressed one after the other.
    :param may_act: Whether the person of a record identifier may act already.
    """

    def __init__(
        self,
        faceki: SandboxProcess,
        deciding: Mapping[str, Sequence[str]],
        may_act: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._faceki = faceki
        self._deciding = deciding
        self._may_act = may_act
        self._pressed: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def act(self) -> None:
        """Press the next button on each page whose moment has come."""
        state: Any = self._faceki.control.get("state")
        for made in state["links"]:
            link, identifier = made["link"], made["record_identifier"]
            if link not in self._next and not self._may_act(identifier):
                continue
            buttons = self._deciding.get(identifier, ())
            due = self._next.setdefault(link, time.monotonic() + THINKING_SECONDS)
            pressed = self._pressed.get(link, 0)
            if pressed < len(buttons) and time.monotonic() >= due:
                self._press(link, buttons[pressed])
                self._pressed[link] = pressed + 1
                self._next[link] = time.monotonic() + THINKING_SECONDS

    def _press(self, link: str, button: str) -> None:
        parts = urlsplit(self._faceki.url)
        page = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            page.request("POST", f"/kycverify/{link}", urlencode({"decision": button}), form)
            status = page.getresponse().status
        finally:
            page.close()
        if status != http.client.SEE_OTHER:
            raise RuntimeError(f"the hosted page answered {button} with HTTP {status}")

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Who answers the links? In the demonstration nobody sits at a browser, so this does what a browser would send."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow_provider_faceki.sandbox import SandboxProcess

# Long enough for the sensor to have looked in vain, so that it really waits in the triggerer.
MOMENT = 4.0


class People:
    """`deciding` says, by record identifier, which buttons are pressed one after the other."""

    def __init__(self, faceki: SandboxProcess, deciding: Mapping[str, Sequence[str]]) -> None:
        self._faceki = faceki
        self._deciding = deciding
        self._pressed: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def act(self) -> None:
        """Press the next button on each page whose moment has come."""
        state: Any = self._faceki.control.get("state")
        for made in state["links"]:
            link, buttons = made["link"], self._deciding.get(made["record_identifier"], ())
            due = self._next.setdefault(link, time.monotonic() + MOMENT)
            pressed = self._pressed.get(link, 0)
            if pressed < len(buttons) and time.monotonic() >= due:
                self._press(link, buttons[pressed])
                self._pressed[link] = pressed + 1
                self._next[link] = time.monotonic() + MOMENT

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

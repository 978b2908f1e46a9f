# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Simulate people who press buttons on the hosted pages of verification links.

To press a button, the module sends the same request as a browser.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow_provider_faceki.sandbox import SandboxProcess

#: The pause in seconds before a button on a hosted page is pressed. The button causes a decision, and the decision
#: makes the trigger of the waiting task fire. If the trigger fires before Airflow's scheduler has processed the
#: deferral of the task, the scheduler marks the task's try as failed. The pause prevents this.
THINKING_SECONDS = 4.0


class SimulatedUsers:
    """Simulated people who press the buttons on the hosted pages.

    :param deciding: maps a record identifier to the buttons that are pressed one after the other.
    :param may_act: a function that receives a record identifier, and returns whether this person may already press a
        button.
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
        """Press the next button on each hosted page whose pause is over.

        Before each button, a simulated person pauses for `THINKING_SECONDS`.
        """
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

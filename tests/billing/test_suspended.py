# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A try that was suspended while it sent a verification sends nothing more, because the next try has possibly begun."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.charged_call import MAX_SUSPENSION_SECONDS
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.billing.conftest import Verify

#: Readings of the clock: one before the request, and two for each of the three images.
READINGS = 7


def suspended(seconds: float, after: int) -> SimpleNamespace:
    """Return a replacement of the module ``time``, whose clock jumps by ``seconds`` after some readings."""
    readings = 0

    def clock_gettime(clock: int) -> float:
        nonlocal readings
        readings += 1
        return time.clock_gettime(clock) + (seconds if readings > after else 0.0)

    return SimpleNamespace(
        time=time.time, monotonic=time.monotonic, sleep=time.sleep, clock_gettime=clock_gettime
    )


@pytest.mark.parametrize("after", [1, READINGS // 2, READINGS - 1], ids=["first read", "midway", "last read"])
def test_a_suspended_try_sends_nothing_more(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    task = verify("accepted-1", resubmit_after=0.5)
    pause = MAX_SUSPENSION_SECONDS + FacekiHook().settings.max_wait + 1.0
    with monkeypatch.context() as during:
        during.setattr(charged_call, "time", suspended(pause, after))
        with pytest.raises(AirflowException, match="was suspended for 18. s while it sent") as caught:
            task.go()
    assert not isinstance(caught.value, AirflowFailException)
    assert sandbox.bills == ()
    # The stored mark of the call is not removed, because it possibly belongs to the next try.
    assert task.store is None or task.store.has_intent
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_a_short_pause_is_tolerated(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charged_call, "time", suspended(MAX_SUSPENSION_SECONDS, READINGS // 2))
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_the_clock_is_read_at_each_image(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock jumps only after READINGS readings. The verification succeeds, so no further reading follows. This
    # proves that READINGS is correct, and that the first test of this module covers the last reading.
    monkeypatch.setattr(charged_call, "time", suspended(1e9, READINGS))
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"

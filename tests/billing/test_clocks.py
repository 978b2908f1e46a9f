# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A verification is billed once, even if FACEKI's clock and the worker's clock differ."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.clock import Clock
from tests.billing.conftest import Connect, Verify


@pytest.fixture(params=[-86400.0, 600.0, 86400.0], ids=["ahead", "ten minutes behind", "a day behind"])
def sandbox(request: pytest.FixtureRequest, connect: Connect) -> Iterator[FacekiSandbox]:
    """A sandbox whose clock differs from this machine's clock."""
    with FacekiSandbox(clock=Clock(start=time.time() - request.param)) as other:
        # The token store possibly contains the token of an earlier sandbox with the same port. This sandbox would
        # reject that token, which would cause one more request. A new client id avoids this.
        other.settings.client_id = f"client-{uuid.uuid4()}"
        connect(other)
        yield other


@pytest.mark.parametrize("fault", ["process_then_reset", "reset_then_process"])
def test_a_lost_answer_is_found(sandbox: FacekiSandbox, verify: Verify, fault: str) -> None:
    sandbox.add_fault(fault, route="verify")
    assert verify("declined-1", lookup_timeout=2.0).go()["decision"] == "DECLINED"
    assert sandbox.ledger == {"declined-1": 1}


def test_a_lost_response_is_found_by_the_next_try(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("status", route="records", status=502, skip=1, count=4)
    task = verify("declined-1", lookup_timeout=0.0, resubmit_after=30.0)
    with pytest.raises(api.OutcomeUnknownError):
        task.go()
    sandbox.clear_faults()
    assert task.go()["decision"] == "DECLINED"
    assert sandbox.ledger == {"declined-1": 1}


def test_always_finds_the_verification_of_this_try(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("process_then_reset", route="verify", skip=1)
    task = verify("accepted-1", resubmit="always")
    first, second = task.go(), task.go()
    assert first["request_id"] != second["request_id"]
    assert sandbox.ledger == {"accepted-1": 2}

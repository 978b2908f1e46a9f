# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Typical uses of the public surface. Nothing runs this: mypy checks that each expression has the type stated."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from airflow_provider_faceki import api
from airflow_provider_faceki.connection.schema import ConnectionSettings
from airflow_provider_faceki.hooks.faceki import FacekiHook

hook = FacekiHook("faceki_default")
image = api.Image.of_bytes("selfie", b"")

assert_type(hook.settings, ConnectionSettings)
assert_type(hook.settings.timeout, float)
assert_type(hook.settings.auth_flow, api.AuthFlow)
assert_type(hook.settings.workflow_id, str | None)

assert_type(hook.call(api.FetchRecords(link="l")), tuple[api.VerificationRecord, ...])
assert_type(hook.call(api.GenerateKycLink(workflow_id="w")), api.KycLink)
assert_type(hook.fetch_records(request_id="r"), tuple[api.VerificationRecord, ...])
assert_type(hook.fetch_records(request_id="r")[0].decision, api.Decision | None)
assert_type(hook.generate_kyc_link(record_identifier="r"), api.KycLink)
assert_type(hook.get_workflow_rules(), api.WorkflowRules)
assert_type(hook.get_workflow_rules(link="l"), api.WorkflowRules)
assert_type(hook.workflow_rules("w"), api.WorkflowRules | None)
assert_type(
    hook.perform_kyc_verification(
        selfie=b"",
        documents=["s3://bucket/front.jpg", Path("/x"), image, {"front": b"", "back": "/y"}],
        record_identifier="r",
    ),
    api.KycVerification,
)
assert_type(hook.match_face("s3://bucket/selfie.jpg"), tuple[api.VerificationRecord, ...])
assert_type(hook.analyze_face(Path("/selfie.jpg")), api.FaceAnalysis)
assert_type(hook.check_image(image), api.ImageCheck)
assert_type(hook.get_pdf_report("r"), api.PdfReport)
assert_type(hook.image(b""), api.Image)
assert_type(hook.test_connection(), tuple[bool, str])


async def use_on_an_event_loop() -> None:
    assert_type(await hook.acall(api.FetchRecords(face_id="f")), tuple[api.VerificationRecord, ...])
    client = await hook.aget_conn()
    assert_type(await client.call(api.GetWorkflowRules(workflow_id="w")), api.WorkflowRules)

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Where FACEKI is: the addresses and paths that its documents leave open or contradict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """One installation of FACEKI.

    :param base_url: All calls but the image check. Default: https://docs.faceki.com/api-integration .
    :param addon_url: The image check, which takes no token. Seen in FACEKI's SDKs.
    :param records_path: Fetching records. The documentation prints this path as the page's heading and
        ``/kycverify/api/kycverify/records`` in its parameter block:
        https://docs.faceki.com/api-integration/verification-apis/fetch-records .
    :param pdf_report_path: Path of a PDF report with ``{requestId}`` in it. It is in no public source, so there
        is no default.
    """

    base_url: str = "https://sdk.faceki.com"
    addon_url: str = "https://addon.faceki.com"
    records_path: str = "/api/v3/kyc_verification"
    pdf_report_path: str | None = None


#: FACEKI as documented.
FACEKI = Service()

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's API, a module for each version of the API, and the hosted page.

Each module lists its own routes at its end. `ROUTES` contains all of them.
"""

from __future__ import annotations

from typing import Final

from airflow_provider_faceki.sandbox.routes import hosted_page, v2, v3

ROUTES: Final = (*v3.ROUTES, *hosted_page.ROUTES, *v2.ROUTES)
ROUTE_NAMES: Final = tuple(dict.fromkeys(route.name for route in (*ROUTES, v3.PDF, v3.UNKNOWN)))

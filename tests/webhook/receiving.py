# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The receiver as a process, with the database of the environment: `python -m tests.webhook.receiving PORT`."""

from __future__ import annotations

import importlib
import sys


def main(port: int) -> None:
    """Serve until the process is terminated."""
    import uvicorn
    from fastapi import FastAPI

    from airflow_provider_faceki.webhook.app import create_app

    # The API server imports these modules before the first webhook arrives.
    importlib.import_module("airflow.models.connection")
    importlib.import_module("airflow.assets.manager")
    parent = FastAPI()
    parent.mount("/faceki", create_app())
    parent.add_api_route("/alive", lambda: {})
    uvicorn.run(parent, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))

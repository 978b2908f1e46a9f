# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow against the sandbox: `make demo` and `make ui`."""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Demonstrations that run Airflow with the sandbox: `make demo` and `make ui`."""

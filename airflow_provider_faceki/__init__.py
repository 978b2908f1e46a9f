# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Apache Airflow provider for FACEKI identity verification."""

__version__ = "0.1.0"

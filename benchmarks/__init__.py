# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Benchmarks of the provider. Each measures a competitor or a lower bound in the same run; see docs/performance.md."""

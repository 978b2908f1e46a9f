# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Benchmarks of the provider, each beside a peer or a floor measured in the same run; see docs/performance.md."""

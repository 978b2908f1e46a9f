# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Benchmarks of the provider, described in docs/performance.md.

Each benchmark also measures a peer or a baseline in the same run.
"""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify all persons in a manifest file, or fetch their records, with bounded memory.

An interrupted batch can be resumed. By default, the verification of each row is billed only once.
"""

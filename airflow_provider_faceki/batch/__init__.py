# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Process a manifest: verify all persons in it, or fetch their records.

A manifest is a file with one row for each person. The needed memory does not grow with the number of rows. An
interrupted batch can be resumed. By default, the verification of each row is billed only once.
"""

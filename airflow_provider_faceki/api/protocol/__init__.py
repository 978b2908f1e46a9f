# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Decide what is sent and what an answer means; no I/O, no clock, no log."""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The protocol of FACEKI: construction of requests and interpretation of answers, without I/O, clock and logging."""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Construction of FACEKI's requests and interpretation of FACEKI's answers. This code does no I/O and no logging."""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Network I/O of FACEKI's clients: HTTP connections, retries, the rate limiter, and the drivers that run a call."""

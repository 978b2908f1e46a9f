# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Network I/O of the api package: drivers, connections, retries and the rate limiter."""

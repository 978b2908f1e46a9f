# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The simulated FACEKI service: its links, records, tokens, charges and webhooks. It contains no HTTP server."""

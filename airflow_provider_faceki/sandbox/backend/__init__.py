# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The service behind the routes: its links, records, tokens, charges and webhooks. No HTTP server."""

# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Many people at once: a manifest in, parts and tables out."""

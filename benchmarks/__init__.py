# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does the provider cost, beside a peer or a floor measured in the same run? See docs/performance.md."""

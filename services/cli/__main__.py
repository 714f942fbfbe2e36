"""The same as the command `plexus`, for a Python that is not on the path: `-m services.cli`."""

from __future__ import annotations

import sys

from services.cli import main

sys.exit(main())

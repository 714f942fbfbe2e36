"""`python -m services` serves every module behind the gateway, as `plexus up` does."""

from __future__ import annotations

import sys

from services import up

if __name__ == "__main__":
    sys.exit(up.main())

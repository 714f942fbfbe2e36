"""`python -m services` serves every module behind the gateway, as `plexus up` does; see --help."""

from __future__ import annotations

import sys

from services import commands

if __name__ == "__main__":
    sys.exit(commands.main(sys.argv[1:]))

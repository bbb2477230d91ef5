"""What `./dev demo` runs: `soma demo` out of the source tree."""

from __future__ import annotations

import sys

from soma_client.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))

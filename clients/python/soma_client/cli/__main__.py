"""``python -m soma_client.cli``."""

import sys

from soma_client.cli import main

sys.exit(main())

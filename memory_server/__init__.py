"""The memory server."""

import os

# The matrices of a recall are small: a second thread waits for them longer than it works. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

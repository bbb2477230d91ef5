"""Programs that come with no wheel: built when they can be, named when not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.tools import ToolMissingError
from scripts.tools import tool as built


def tool(name: str) -> Path:
    """A program of `scripts/tools.py`; without it the test is skipped with the reason, and fails where CI=true."""
    try:
        return built(name)
    except ToolMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))

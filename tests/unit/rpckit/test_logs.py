"""A log record is one line of JSON, whatever it holds."""

import json
import logging
from pathlib import Path

import pytest

from rpckit.telemetry.logs import JsonFormatter


@pytest.mark.parametrize(
    "value", ["plain", 'quote " and \n newline', "ä 😀", "\ud800", 2**80, float("nan"), Path("/tmp"), {"a": [1, None]}]
)
def test_a_record_is_one_line_of_json(value: object) -> None:
    record = logging.LogRecord("soma.test", logging.INFO, __file__, 1, "said %s", ("this",), None)
    record.fields = {"value": value}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["message"], read["level"], read["logger"]) == ("said this", "info", "soma.test")
    if isinstance(value, str | int | dict):
        assert read["value"] == value

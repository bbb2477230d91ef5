"""A log record is one line of JSON, whatever it holds."""

import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import pytest

from rpckit.telemetry.logs import JsonFormatter, LineHandler


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


@pytest.mark.parametrize("created", [0.0, 1_700_000_000.0, 1_700_000_000.9994, 1_700_000_000.25, 1_700_000_001.001])
def test_a_line_tells_the_time_in_iso_8601_with_milliseconds(created: float) -> None:
    formatter = JsonFormatter()
    record = logging.LogRecord("soma.test", logging.INFO, __file__, 1, "said", (), None)
    for moment in (created, created + 0.5, created):
        record.created = moment
        told = datetime.fromisoformat(json.loads(formatter.format(record))["at"])
        assert (UTC, True) == (told.tzinfo, 0 <= moment - told.timestamp() < 0.001 + 1e-6)


def logged(stream: TextIO, *messages: str) -> None:
    """Have these written by a handler of its own."""
    logger = logging.getLogger("soma.test.lines")
    handler = LineHandler(stream)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        for message in messages:
            logger.error(message)
    finally:
        logger.removeHandler(handler)


def test_each_record_is_written_at_once_as_a_line_of_utf_8() -> None:
    kept, text = io.BytesIO(), io.StringIO()
    encoded = io.TextIOWrapper(kept, encoding="ascii")
    for stream in (encoded, text):
        logged(stream, "ä 😀", "second")
    for told in (kept.getvalue().decode(), text.getvalue()):
        assert ["ä 😀", "second"] == [json.loads(line)["message"] for line in told.splitlines()]


def test_a_stream_that_cannot_be_written_does_not_end_what_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    kept = io.BytesIO()
    stream = io.TextIOWrapper(kept)
    kept.close()
    logged(stream, "lost")
    assert "closed file" in capsys.readouterr().err

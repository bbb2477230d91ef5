"""Structured logs: one JSON object a line, with the request id of the call it was written in."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import BinaryIO, TextIO

import orjson

from rpckit.call import current_call_or_none


class JsonFormatter(logging.Formatter):
    """A record as a JSON object; ``extra={"fields": {…}}`` adds keys to it."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        return self.encoded(record).decode()

    def encoded(self, record: logging.LogRecord) -> bytes:
        """The object as UTF-8."""
        line: dict[str, object] = {
            "at": self._at(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields:
            line.update(fields)
        if "request_id" not in line and (call := current_call_or_none()) is not None:
            line["request_id"] = call.request_id
            if call.tenant is not None:
                line["tenant"] = call.tenant.name
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str)
        except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits
            return json.dumps(line, default=str).encode()

    def _at(self, created: float) -> str:
        """A time in ISO 8601; what changes once a second is made once a second."""
        second, text = self._second
        if int(created) != second:
            second = int(created)
            text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
            self._second = second, text
        return f"{text}.{int((created - second) * 1000):03d}+00:00"


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each record as one line at once, past the encoding of text: a line a call is paid for by each call."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines = JsonFormatter()
        self.setFormatter(self._lines)
        self._bytes: BinaryIO | None = getattr(stream, "buffer", None)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot be written is told as logging tells it."""
        if self._bytes is None:
            super().emit(record)
            return
        try:
            self._bytes.write(self._lines.encoded(record) + b"\n")
            self._bytes.flush()
        except Exception:  # noqa: BLE001 - logging must not end what is logged
            self.handleError(record)


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (stderr) as JSON lines; replaces what was configured."""
    handler = LineHandler(stream or sys.stderr)
    # What the format does not use need not be found out for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # grpc logs the text of exceptions that we have logged already, and of calls that ended by cancellation.
    logging.getLogger("grpc").setLevel(logging.WARNING)

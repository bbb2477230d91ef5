"""Structured logs: one JSON object a line, with the request id of the call it was written in."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson

from rpckit.call import current_call_or_none


class JsonFormatter(logging.Formatter):
    """A record as a JSON object; ``extra={"fields": {…}}`` adds keys to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
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
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half of a surrogate pair, or an integer beyond 64 bits
            return json.dumps(line, default=str)


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (stderr) as JSON lines; replaces what was configured."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    # What the format does not use need not be found out for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # grpc logs the text of exceptions that we have logged already, and of calls that ended by cancellation.
    logging.getLogger("grpc").setLevel(logging.WARNING)

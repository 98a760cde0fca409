"""Structured logs on top of the standard library's: one line per event, as key=value text or as JSON.

    time=2026-01-31T12:00:00.123Z level=warning address=partition/ORDERS/0 incarnation=3 event="child died" reason=...

Actors use only `logging`: the message is the event, `extra={"fields": {...}}` the rest. All output goes to standard
error; to log to a file, redirect it, so that a crashing interpreter's last output is in the file as well.
"""

import json
import logging
import re
import sys
import time
from typing import Any

_PLAIN = re.compile(r"[\w./:@+,*\[\]-]+")


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    logger.log(level, name, extra={"fields": fields})


def set_up(level: str, log_format: str, address: str, incarnation: int) -> None:
    """Write every log record of this process to standard error, as a line of `address.incarnation`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(log_format, address, incarnation))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _Formatter(logging.Formatter):
    def __init__(self, log_format: str, address: str, incarnation: int) -> None:
        super().__init__()
        self._line = _as_json if log_format == "json" else _as_text
        self._origin: dict[str, Any] = {"address": address, "incarnation": incarnation}

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            **self._origin,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._line(fields)


def _time(created: float) -> str:
    seconds, milliseconds = divmod(int(created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _as_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, default=str, ensure_ascii=False)


def _as_text(fields: dict[str, Any]) -> str:
    return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None)


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)

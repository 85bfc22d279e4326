"""One line of JSON an event: when, how grave, what, and of which request. Nothing of a prompt, an answer or a key."""

import json
import logging
import time

FIELDS = ("request_id", "method", "path", "status", "seconds", "key", "model", "client")
access = logging.getLogger("qualm.serving.access")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def to(handler: logging.Handler, level: int = logging.INFO) -> None:
    """Send what the server says to `handler`."""
    handler.setFormatter(JsonLines())
    for name in ("qualm.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == "qualm.serving" else max(level, logging.WARNING))

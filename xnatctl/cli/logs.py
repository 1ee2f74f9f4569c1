"""Logging: `-v` and `-vv` on stderr, `--log-file` as JSON lines. No line carries a secret.

The file gets everything whatever `-q` or `-v` say, is readable by its owner only, and is appended
to. Secrets that this process knows are replaced wherever they appear, and so is whatever looks like
one.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from xnatctl.errors import LocalFault

from .app import App

_LOOKS_SECRET = re.compile(
    r"(?i)((?:password|passwd|secret|token|jsessionid|csrf)[\"']?\s*[=:]\s*[\"']?|"
    r"authorization:?\s+(?:basic|bearer)\s+)[^\s&\"',;]+"
)


class Redacting(logging.Formatter):
    """Formats a record with every secret replaced by `***`."""

    def __init__(self, secrets: set[str]) -> None:
        super().__init__("%(message)s")
        self._secrets = secrets

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            if len(secret) >= 4:
                text = text.replace(secret, "***")
        return _LOOKS_SECRET.sub(r"\1***", text)

    def format(self, record: logging.LogRecord) -> str:
        return self.clean(super().format(record))


class JsonLines(Redacting):
    """One JSON object a line: at (UTC), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": super().format(record),
        }
        return json.dumps(line, ensure_ascii=False)


class ToConsole(logging.Handler):
    """Lines on stderr, by way of the console."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app

    def emit(self, record: logging.LogRecord) -> None:
        self._app.console.note(self.format(record))


@contextmanager
def logging_to(app: App) -> Iterator[None]:
    """Log where the options say, and stop doing so at the end."""
    handlers: list[logging.Handler] = []
    file: TextIO | None = None
    if path := app.settings.log_file or app.environ.get("XNATCTL_LOG_FILE"):
        file = _open(Path(path).expanduser())
        to_file = logging.StreamHandler(file)
        to_file.setLevel(logging.DEBUG)
        to_file.setFormatter(JsonLines(app.secrets))
        handlers.append(to_file)
    if app.settings.verbose:
        to_console = ToConsole(app)
        to_console.setLevel(logging.INFO if app.settings.verbose == 1 else logging.DEBUG)
        to_console.setFormatter(Redacting(app.secrets))
        handlers.append(to_console)
    logger = logging.getLogger("xnatctl")
    before = logger.level, logger.propagate
    if handlers:
        logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handlers = handlers or [logging.NullHandler()]
    for handler in handlers:
        logger.addHandler(handler)
    try:
        logger.info("xnatctl %s", " ".join(app.argv))
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.level, logger.propagate = before
        if file is not None:
            file.close()


def _open(path: Path) -> TextIO:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise LocalFault(
            f"the log file {path} cannot be written",
            why=error.strerror or str(error),
            hint="choose another path for --log-file",
        ) from error
    return os.fdopen(descriptor, "a", encoding="utf-8", buffering=1)

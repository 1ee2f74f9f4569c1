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
from contextlib import ExitStack, contextmanager
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
    """Log where the options say, and stop doing so at the end.

    The file is that of `--log-file`, else of XNATCTL_LOG_FILE, else the configuration's `log_file`,
    which is known only once a command has read the configuration.
    """
    logger = logging.getLogger("xnatctl")
    before = logger.level, logger.propagate
    logger.propagate = False
    with ExitStack() as stack:
        stack.callback(_restore, logger, *before)
        _attach(stack, logger, logging.NullHandler())
        if app.settings.verbose:
            to_console = ToConsole(app)
            to_console.setLevel(logging.INFO if app.settings.verbose == 1 else logging.DEBUG)
            to_console.setFormatter(Redacting(app.secrets))
            logger.setLevel(logging.DEBUG)
            _attach(stack, logger, to_console)

        def to_file(path: str) -> None:
            file = stack.enter_context(_open(Path(path).expanduser()))
            handler = logging.StreamHandler(file)
            handler.setFormatter(JsonLines(app.secrets))
            logger.setLevel(logging.DEBUG)
            _attach(stack, logger, handler)
            logger.info("xnatctl %s", " ".join(app.argv))

        if path := app.settings.log_file or app.environ.get("XNATCTL_LOG_FILE"):
            to_file(path)
        else:
            app.begin_log = to_file
        yield


def _attach(stack: ExitStack, logger: logging.Logger, handler: logging.Handler) -> None:
    logger.addHandler(handler)
    stack.callback(logger.removeHandler, handler)


def _restore(logger: logging.Logger, level: int, propagate: bool) -> None:
    logger.setLevel(level)
    logger.propagate = propagate


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

"""The entry point: parse, run, and turn whatever went wrong into words and an exit code.

1. `--version` is answered before anything is imported.
2. The command line is parsed without an event loop; that gives a `Job`, or help was printed.
3. The job runs under `run.supervise`, which owns the loop and the signals.
4. Errors come out here, and nowhere else become words.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.cli.group import Job
    from xnatctl.ui.console import Problem


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    # What a start imports is never garbage: it is not looked through seven hundred objects at a
    # time, nor once more at the end.
    gc.set_threshold(20_000)
    code = run(sys.argv[1:] if argv is None else argv, owns_process=True)
    gc.freeze()
    sys.exit(code)


def run(argv: Sequence[str], *, owns_process: bool = False) -> int:
    """Do what the arguments say and return the exit code. Never raises."""
    if list(argv) == ["--version"]:
        from xnatctl._version import __version__

        sys.stdout.write(f"xnatctl {__version__}\n")
        return 0
    from xnatctl.cli.app import App

    app = App(tuple(argv))
    app.owns_process = owns_process
    try:
        job = parse(argv, app)
        if job is None:
            return 0
        from xnatctl.cli.run import supervise

        return supervise(app, job)
    except SystemExit as done:  # shell completion, or a reader of the help that went away
        return done.code if isinstance(done.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the one place that tells them all
        return tell(error, app)


def parse(argv: Sequence[str], app: App) -> Job | None:
    """What the arguments ask for; None when they asked for help and have it.

    The parser is a coroutine that never waits, so it is driven by hand: no event loop is made, and
    none is imported.
    """
    from xnatctl.cli.root import root

    steps: Any = root.main(
        list(argv),
        prog_name="xnatctl",
        standalone_mode=False,
        complete_var="_XNATCTL_COMPLETE",
        obj=app,
    )
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value if hasattr(done.value, "call") else None
    steps.close()
    raise RuntimeError("a parameter's callback waited for something")


def tell(error: BaseException, app: App) -> int:
    """Say what went wrong and return the exit code."""
    from asyncclick.exceptions import NoArgsIsHelpError

    from xnatctl.errors import first_known

    error = first_known(error)
    if isinstance(error, NoArgsIsHelpError):
        is_root = error.ctx is None or error.ctx.parent is None
        stream = sys.stdout if is_root else sys.stderr
        stream.write(f"{error.message}\n")
        return 0 if is_root else 2
    problem = explain(error)
    app.console.error(problem)
    if app.settings.debug:
        import traceback

        app.console.details("".join(traceback.format_exception(error)))
    return problem.code


def explain(error: BaseException) -> Problem:
    """The words for an error: what failed, why, and what to do next."""
    import asyncclick.exceptions as click

    from xnatctl.errors import Cancelled, XnatctlError
    from xnatctl.ui.console import Problem

    if isinstance(error, XnatctlError):
        code = error.code if isinstance(error, Cancelled) else error.exit_code
        return Problem(
            error.message, error.why, error.hint, error.kind, code, type(error).retryable
        )
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "xnatctl"
        words = error.format_message().rstrip(".")
        words = words.replace("a valid integer range", "a whole number")
        why = ""
        if isinstance(error, (click.NoSuchCommand, click.NoSuchOption)):
            words = error.message.rstrip(".")
            why = f"did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return Problem(words[:1].lower() + words[1:], why, f"{path} --help", "usage-error", 2)
    if isinstance(error, click.ClickException):
        return Problem(error.format_message(), code=error.exit_code)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Problem("interrupted", kind="cancelled", code=130)
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return Problem(
            "this machine refused", what, "check the path, its rights and free space", "local-fault"
        )
    return Problem(
        f"internal error: {type(error).__name__}: {error}",
        "this is a fault of xnatctl, not yours",
        "run it again with --debug and report what it prints",
        "internal-error",
    )

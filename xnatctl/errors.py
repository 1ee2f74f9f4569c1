"""Everything that can go wrong, as one tree; only `cli.main` turns these into words on a terminal.

    XnatctlError                     exit  retryable
    ├── UsageError                     2      no    a flag or an argument makes no sense
    ├── ConfigError                    2      no    a profile, a YAML file, a manifest
    ├── AuthError                      3      no    wrong or missing credentials
    │   └── SessionLost                3      yes   the login expired; a new one has been made
    ├── PermissionDenied               6      no    known to the server, not allowed
    ├── NotFound                       5      no
    ├── Conflict                       9      no    something else is already there
    │   └── Locked                     9      no    another run holds these two ends
    ├── Refused                        1      no    understood and denied (400, 413, 422 …)
    ├── Unreachable                    4      yes   no connection, reset, time-out, stall
    │   └── Untrusted                  4      no    the certificate is not one we may trust
    ├── Busy                           4      yes   429, 503, 423: come back later
    ├── ServerFault                    4      yes   500, 502, 504
    ├── BadReply                       4      yes   a login page with 200, cut JSON, wrong body
    ├── Corrupt                        8      yes   size, digest or archive do not agree
    │   └── Lacking                    8      yes   a whole archive without all that was listed
    ├── Vanished                       1      no    listed, and gone when it was read
    ├── LocalFault                     1      no    this machine: disk full, read-only, permission
    ├── MissingExtra                   2      no    an optional package is not installed
    ├── Replan                         1      no    a unit must be planned anew; never shown
    ├── LeftBehind                     1      no    the other end cannot hold it
    ├── Incomplete                     1      no    a run ended with failed items
    ├── Declined                       7      no    "no" at a prompt
    └── Cancelled                    130      no    Ctrl-C, or 143 for SIGTERM

The message says what failed in the user's words, `why` is the cause as far as it is known (a
status, the first line of the server's text), `hint` is what to do next. No message carries a
credential: `transport` redacts URLs.
"""

from __future__ import annotations

from typing import Any, ClassVar


class XnatctlError(Exception):
    """Base of all errors that are shown to a user as sentences."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, why: str = "", hint: str = "", status: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        # The number of an error tells a person nothing that its words do not.
        self.why = why.partition("] ")[2] if why.startswith("[Errno ") else why
        self.hint = hint or self.default_hint
        self.status = status
        self.blame = ""
        """`source` or `sink` where one end of a relay is known to have failed."""

    def __str__(self) -> str:
        return f"{self.message}: {self.why}" if self.why else self.message

    @property
    def kind(self) -> str:
        """The name of the class in the words of reports: `ServerFault` is `server-fault`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


class UsageError(XnatctlError):
    exit_code = 2


class ConfigError(XnatctlError):
    exit_code = 2


class MissingExtra(XnatctlError):
    exit_code = 2


class AuthError(XnatctlError):
    exit_code = 3
    default_hint = "xnatctl auth login"

    def __init__(self, message: str, *, at: str = "", **more: Any) -> None:
        """`at` is the address of the server that wants a login; the rest as above."""
        super().__init__(message, **more)
        self.at = at


class SessionLost(AuthError):
    """The login expired while a body was on its way; the next attempt has a new one."""

    retryable = True


class PermissionDenied(XnatctlError):
    exit_code = 6


class NotFound(XnatctlError):
    exit_code = 5


class Conflict(XnatctlError):
    exit_code = 9


class Locked(Conflict):
    """Another run works on the same pair of ends."""


class Refused(XnatctlError):
    """The server understood the request and said no; sending it again cannot help."""


class Unreachable(XnatctlError):
    """Nothing was heard, or the connection broke. `sent` tells whether request bytes had left."""

    exit_code = 4
    retryable = True

    def __init__(self, message: str, *, why: str = "", hint: str = "", sent: bool = False) -> None:
        super().__init__(message, why=why, hint=hint)
        self.sent = sent


class Untrusted(Unreachable):
    retryable = False
    default_hint = "name the certificate authority with --ca-bundle FILE"


class Busy(XnatctlError):
    """The server asks for a pause. `after` is its Retry-After in seconds, if it named one."""

    exit_code = 4
    retryable = True

    def __init__(
        self, message: str, *, why: str = "", status: int | None = None, after: float | None = None
    ) -> None:
        super().__init__(message, why=why, status=status)
        self.after = after


class ServerFault(XnatctlError):
    exit_code = 4
    retryable = True


class BadReply(XnatctlError):
    exit_code = 4
    retryable = True


class Corrupt(XnatctlError):
    exit_code = 8
    retryable = True


class Lacking(Corrupt):
    """An archive that ends well and does not hold every listed file: XNAT leaves out what its disk
    lost.
    """


class Vanished(XnatctlError):
    """The source listed it, and it was gone when it was read."""


class LocalFault(XnatctlError):
    """The disk of this machine: full, read-only, not ours."""


class Replan(XnatctlError):
    """A sink learned something that changes the plan of a unit; the runner plans it anew."""


class LeftBehind(XnatctlError):
    """One thing that the sink cannot hold, with the code of the reason; the rest goes on."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Incomplete(XnatctlError):
    """A run ended, and some of its items failed; the report names them."""


class Declined(XnatctlError):
    exit_code = 7


class Cancelled(XnatctlError):
    exit_code = 130

    def __init__(self, message: str = "interrupted", *, hint: str = "", code: int = 130) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def first_known(error: BaseException) -> BaseException:
    """The error worth showing out of a group: the first of ours, else the first leaf."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [first_known(one) for one in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, XnatctlError)), leaves[0])


def words(error: BaseException) -> str:
    """An error in one line, for reports."""
    if isinstance(error, XnatctlError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

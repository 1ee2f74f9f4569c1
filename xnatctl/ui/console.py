"""The one place that writes to the terminal: results on stdout, everything human on stderr.

Each stream decides for itself: a table is drawn only on a terminal, colour only where it is wanted
(`--color`, NO_COLOR, CLICOLOR, FORCE_COLOR, TERM=dumb), and characters that a stream cannot encode
are replaced by escapes instead of failing. A reader that went away (`| head`) is not an error: the
rest of the output is dropped and the command ends as it would have.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from xnatctl.errors import Cancelled, Declined, UsageError

from . import render
from .shape import Row, Shape, chosen, shaped

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

Format = Literal["table", "json", "jsonl", "yaml", "csv", "tsv"]
LONGEST_WORD = 40
FORMATS: tuple[Format, ...] = ("table", "json", "jsonl", "yaml", "csv", "tsv")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list: the key of its field and the words above it.

    `show` turns a value into the text of a table; other formats have the value itself.
    """

    key: str
    title: str = ""
    right: bool = False
    show: Callable[[Any], str] = render.cell

    @property
    def words(self) -> str:
        short = self.key.upper() if self.key in ("id", "url", "pi", "vr") else ""
        return self.title or short or self.key.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is told: what failed, why, and what to do next."""

    message: str
    why: str = ""
    hint: str = ""
    kind: str = "error"
    code: int = 1
    retryable: bool = False


class Console:
    """Two streams and the wishes of the user. Stateless apart from whether a reader went away."""

    def __init__(
        self,
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
        output: Format | None = None,
        quiet: bool = False,
        headers: bool = True,
        color: str = "auto",
    ) -> None:
        self.out = out or sys.stdout or _nowhere()
        self.err = err or sys.stderr or _nowhere()
        self.environ = os.environ if environ is None else environ
        self.format: Format = output or ("table" if _is_terminal(self.out) else "tsv")
        self.is_plain = output is None
        self.quiet = quiet
        self.headers = headers
        self.color = color
        self._deaf: set[int] = set()
        # Set while a bar is drawn on stderr: words have to go above it.
        self.above: Callable[[str], None] | None = None

    @property
    def is_machine(self) -> bool:
        """Whether a format for programs was asked for by name."""
        return not self.is_plain and self.format in ("json", "jsonl", "yaml")

    # -- what the streams can do ------------------------------------------------------------------

    def is_terminal(self, stream: TextIO) -> bool:
        return _is_terminal(stream)

    def has_color(self, stream: TextIO) -> bool:
        if self.color != "auto":
            return self.color == "always"
        if self.environ.get("NO_COLOR"):
            return False
        forced = self.environ.get("FORCE_COLOR") or self.environ.get("CLICOLOR_FORCE")
        if forced and forced != "0":
            return True
        if self.environ.get("CLICOLOR") == "0" or self.environ.get("TERM") == "dumb":
            return False
        return _is_terminal(stream)

    def has_unicode(self, stream: TextIO) -> bool:
        return (stream.encoding or "ascii").lower().replace("-", "").startswith("utf")

    def can_redraw(self, stream: TextIO) -> bool:
        """Whether a bar can be drawn over: a terminal that understands cursor movement."""
        return _is_terminal(stream) and self.environ.get("TERM") not in ("dumb", "unknown")

    def rich(self, stream: TextIO) -> RichConsole:
        """A rich console over one of the streams; imported here, since few commands need it."""
        from rich.console import Console as RichConsole

        color = self.has_color(stream)
        return RichConsole(
            file=stream,
            force_terminal=True,
            color_system="auto" if color else None,
            no_color=not color,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=False,
            legacy_windows=False,
            safe_box=not self.has_unicode(stream),
            _environ=self.environ,
        )

    # -- results ----------------------------------------------------------------------------------

    def rows(
        self,
        rows: Sequence[Row],
        columns: Sequence[Column | str],
        *,
        key: str = "id",
        shape: Shape = Shape(),  # noqa: B008
    ) -> None:
        """A list. `columns` are shown in tables; JSON has every field. `-q` prints `key` alone."""
        shown = [one if isinstance(one, Column) else Column(one) for one in columns]
        names = [column.key for column in shown]
        picked = chosen(names, rows, shape)
        kept = shaped(rows, names, shape)
        if self.quiet:
            self.write("".join(f"{render.visible(row.get(key) or '')}\n" for row in kept))
            return
        if picked is not None:
            known = {column.key: column for column in shown}
            shown = [known.get(name) or Column(name) for name in picked]
            kept = [{name: row.get(name) for name in picked} for row in kept]
        if self.format == "table" and not kept and _is_terminal(self.out):
            self.say("nothing found")
        elif self.format == "table":
            self.table(kept, shown)
        elif self.format in ("csv", "tsv"):
            write = render.as_csv if self.format == "csv" else render.as_tsv
            self.write(write(kept, [column.key for column in shown], header=self.headers))
        elif self.format == "jsonl":
            self.write("".join(render.as_json_line(row) for row in kept))
        else:
            self.document([dict(row) for row in kept])

    def record(
        self, record: Row, *, key: str = "id", titles: Mapping[str, str] | None = None
    ) -> None:
        """One thing: `name  value` lines on a terminal, a header and a row in a pipe."""
        if self.quiet:
            self.write(f"{render.visible(record.get(key) or '')}\n")
        elif self.format == "table":
            words = {name: (titles or {}).get(name) or Column(name).words for name in record}
            pairs = [(words[name], render.cell(value) or "-") for name, value in record.items()]
            self._pairs(pairs)
        elif self.format in ("csv", "tsv"):
            write = render.as_csv if self.format == "csv" else render.as_tsv
            self.write(write([record], list(record), header=self.headers))
        else:
            self.document(dict(record))

    def document(self, data: object) -> None:
        """Any value as JSON, one JSON line, or YAML; JSON where the format is a table's."""
        if self.format == "yaml":
            self.write(render.as_yaml(data))
        elif self.format == "jsonl":
            self.write(render.as_json_line(data))
        else:
            self.write(render.as_json(data))

    def table(self, rows: Sequence[Row], columns: Sequence[Column], *, title: str = "") -> None:
        """A table for people: drawn by rich on a terminal, aligned plain text in a pipe."""
        cells = [[column.show(row.get(column.key)) for column in columns] for row in rows]
        if not _is_terminal(self.out):
            heading = f"{title}\n" if title else ""
            table = [[column.words.upper() for column in columns], *cells]
            self.write(heading + render.as_columns(table, header=self.headers))
            return
        from rich.table import Table
        from rich.text import Text

        least = _least_widths(columns, cells)
        if sum(least) + 2 * (len(least) - 1) > self.rich(self.out).width:
            # One below the other, rather than cut off.
            for at, row in enumerate(cells):
                self.write("\n" if at else "")
                self._pairs([(one.words, text) for one, text in zip(columns, row, strict=True)])
            return
        table_ = Table(
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
            header_style="bold",
            show_header=self.headers,
            title=Text(title, style="bold") if title else None,
            title_justify="left",
        )
        for column, wide in zip(columns, least, strict=True):
            table_.add_column(
                Text(column.words.upper()),
                justify="right" if column.right else "left",
                overflow="fold",
                min_width=wide,
            )
        for row in cells:
            table_.add_row(*(Text(text) for text in row))
        self._draw(self.out, lambda rich: rich.print(table_))

    def _pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        wide = max((render.width(words) for words, _ in pairs), default=0)
        bold = self.has_color(self.out)
        for words, value in pairs:
            head = words + " " * (wide - render.width(words))
            self.write(f"\x1b[1m{head}\x1b[0m  {value}\n" if bold else f"{head}  {value}\n")

    def heading(self, text: str) -> None:
        """A line above a part of a result, for people only."""
        bold = self.has_color(self.out)
        self.write(f"\n\x1b[1m{render.visible(text)}\x1b[0m\n" if bold else f"\n{text}\n")

    def write(self, text: str) -> None:
        """Text on stdout as it is."""
        self._write(self.out, text)

    # -- words ------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A sentence for the person at the terminal; silent with `-q`."""
        if not self.quiet:
            self._write(self.err, f"{render.visible(text)}\n")

    def warn(self, text: str) -> None:
        self._labelled("warning:", "33", text)

    def fail(self, text: str, *, hint: str = "") -> None:
        """One thing of many that failed; shown with `-q` too."""
        self._labelled("failed:", "31", text)
        if hint:
            self._labelled("   fix:", "2", hint)

    def error(self, problem: Problem) -> None:
        """Three lines, or with a JSON format one JSON object, on stderr."""
        if self.is_machine and self.format != "yaml":
            record = {
                "error": problem.kind,
                "code": problem.code,
                "message": problem.message,
                "why": problem.why,
                "hint": problem.hint,
                "retryable": problem.retryable,
            }
            self._write(self.err, render.as_json_line(record))
            return
        self._labelled("error:", "1;31", problem.message)
        if problem.why:
            self._labelled("  why:", "2", problem.why)
        if problem.hint:
            self._labelled("  fix:", "2", problem.hint)

    def details(self, text: str) -> None:
        """Lines for a programmer (a traceback) on stderr; only asked for by `--debug`."""
        lines = text.splitlines()
        self._write(self.err, "".join(f"{render.visible(line)}\n" for line in lines))

    def note(self, text: str) -> None:
        """A line on stderr that `-q` does not hide: what was asked for by another option."""
        self._write(self.err, f"{render.visible(text)}\n")

    def _labelled(self, label: str, style: str, text: str) -> None:
        shown = f"\x1b[{style}m{label}\x1b[0m" if self.has_color(self.err) else label
        self._write(self.err, f"{shown} {render.visible(text)}\n")

    # -- questions --------------------------------------------------------------------------------

    def confirm(self, question: str, *, flag: str = "--yes") -> None:
        """Go on only after a yes. Raises Declined, or UsageError where nobody can answer."""
        if not sys.stdin or not _is_terminal(sys.stdin):
            raise UsageError(
                f"this needs a confirmation: {question}",
                why="standard input is not a terminal, so nobody can be asked",
                hint=f"add {flag}",
            )
        answer = self._ask(f"{question} [y/N] ", input)
        if answer.strip().lower() not in ("y", "yes"):
            raise Declined("nothing was done", why="the answer was no")

    def ask(self, question: str, *, hint: str) -> str:
        """A text from the person at the terminal. Raises UsageError where nobody can answer."""
        return self._question(question, hint, input)

    def secret(self, question: str, *, hint: str) -> str:
        """The same, without showing what is typed."""
        from getpass import getpass

        return self._question(question, hint, getpass)

    def _question(self, question: str, hint: str, read: Callable[[str], str]) -> str:
        if not sys.stdin or not _is_terminal(sys.stdin):
            raise UsageError(
                f"{question.lower()} is missing",
                why="standard input is not a terminal, so nobody can be asked",
                hint=hint,
            )
        return self._ask(f"{question}: ", read)

    def _ask(self, words: str, read: Callable[[str], str]) -> str:
        with _interruptible():
            try:
                if read is input:
                    self._write(self.err, words)
                    return input()
                return read(words)
            except KeyboardInterrupt:
                self._write(self.err, "\n")  # the terminal shows ^C behind the question
                raise Cancelled("interrupted at a question") from None
            except EOFError:
                raise Declined("nothing was done", why="the question was not answered") from None

    # -- the streams ------------------------------------------------------------------------------

    def _write(self, stream: TextIO, text: str) -> None:
        if not text or id(stream) in self._deaf:
            return
        if stream is self.err and self.above is not None:
            self.above(text)
            return
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                known = stream.encoding or "ascii"
                stream.write(text.encode(known, "backslashreplace").decode(known))
            stream.flush()
        except (BrokenPipeError, ValueError):
            # The reader is gone, or the stream was closed by whoever started us.
            self._lose(stream)

    def _draw(self, stream: TextIO, draw: Callable[[RichConsole], None]) -> None:
        if id(stream) in self._deaf:
            return
        try:
            draw(self.rich(stream))
            stream.flush()
        except BrokenPipeError:
            self._lose(stream)

    def _lose(self, stream: TextIO) -> None:
        self._deaf.add(id(stream))
        try:
            # What is still buffered must not raise again when the interpreter closes the stream.
            with open(os.devnull, "wb") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), stream.fileno())
        except (OSError, ValueError):
            pass


def _least_widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    """What each column needs: names in front and figures stay whole, other text breaks at spaces,
    and a word only where it is longer than `LONGEST_WORD`.
    """
    found = []
    for at, column in enumerate(columns):
        texts = [column.words, *(row[at] for row in cells)]
        if at and not column.right:
            texts = [word[:LONGEST_WORD] for text in texts for word in text.split()]
        found.append(max((render.width(text) for text in texts), default=1))
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question: a running event loop takes the signal away from `input`."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not the main thread: its handlers are not ours to change
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _nowhere() -> TextIO:
    """Stands in for a stream that whoever started us has closed."""
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False

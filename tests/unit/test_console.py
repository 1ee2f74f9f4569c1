"""What reaches the terminal: formats, colour, control characters, errors, and the list options."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import yaml

from xnatctl.errors import UsageError
from xnatctl.ui.console import Column, Console, Format, Problem
from xnatctl.ui.render import cell, size, span, visible, width
from xnatctl.ui.shape import Shape, chosen, shaped

ROWS: list[dict[str, Any]] = [
    {"id": "E2", "label": "b", "n": "10"},
    {"id": "E1", "label": "A\tx", "n": "9"},
    {"id": "E3", "label": None, "n": ""},
]
COLUMNS = [Column("id", "ID"), Column("label"), Column("n", right=True)]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Ascii(io.TextIOWrapper):
    """A stream that can encode ASCII only, as in the C locale."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", write_through=True)

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode("ascii")


def console(output: Format | None = None, **more: Any) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = more.pop("out", io.StringIO()), more.pop("err", io.StringIO())
    environ = more.pop("environ", {})
    return Console(out=out, err=err, environ=environ, output=output, **more), out, err


# -- formats -----------------------------------------------------------------------------------


def test_a_list_in_a_pipe_is_tsv_with_a_header_and_a_line_a_row() -> None:
    it, out, _ = console()
    it.rows(ROWS, COLUMNS)
    assert out.getvalue().splitlines() == ["id\tlabel\tn", "E2\tb\t10", "E1\tA\\tx\t9", "E3\t\t"]


def test_a_list_on_a_terminal_is_a_table() -> None:
    it, out, _ = console(out=Terminal())
    it.rows(ROWS, COLUMNS)
    assert "ID" in out.getvalue()
    assert "A\\tx" in out.getvalue()
    assert "id\tlabel" not in out.getvalue()


def test_a_table_that_has_no_room_is_written_row_below_row_and_loses_nothing() -> None:
    wide = [
        {"id": "SITE_E00001", "label": "L", "n": 1234567890},
        {"id": "E2", "label": "M", "n": 1},
    ]
    it, out, _ = console(out=Terminal(), environ={"COLUMNS": "29", "NO_COLOR": "1"})
    it.rows(wide, COLUMNS)
    rows = "ID     SITE_E00001\nLabel  L\nN      1234567890\n\nID     E2\nLabel  M\nN      1\n"
    assert out.getvalue() == rows


def test_an_empty_list_on_a_terminal_says_so_and_stdout_stays_empty() -> None:
    it, out, err = console(out=Terminal())
    it.rows([], COLUMNS)
    assert (out.getvalue(), err.getvalue()) == ("", "nothing found\n")


def test_a_table_in_a_pipe_cuts_and_wraps_nothing() -> None:
    it, out, _ = console("table")
    it.rows([{"id": "x" * 300, "label": "y" * 300}], COLUMNS[:2])
    assert f"{'x' * 300}  {'y' * 300}\n" in out.getvalue()


def test_json_is_one_bare_array_and_an_empty_list_is_an_array_too() -> None:
    it, out, _ = console("json")
    it.rows(ROWS, COLUMNS)
    assert json.loads(out.getvalue()) == ROWS
    it, out, _ = console("json")
    it.rows([], COLUMNS)
    assert json.loads(out.getvalue()) == []


def test_json_lines_hold_one_row_each() -> None:
    it, out, _ = console("jsonl")
    it.rows(ROWS, COLUMNS)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == ROWS


def test_yaml_reads_back_as_the_same_rows() -> None:
    it, out, _ = console("yaml")
    it.rows(ROWS, COLUMNS)
    assert yaml.safe_load(out.getvalue()) == ROWS


def test_csv_reads_back_with_its_tabs_and_line_ends() -> None:
    it, out, _ = console("csv")
    it.rows([{"id": "1", "label": 'a\n"b",c'}], COLUMNS[:2])
    assert list(csv.reader(io.StringIO(out.getvalue()))) == [["id", "label"], ["1", 'a\n"b",c']]


@pytest.mark.parametrize("output", ["table", "csv", "tsv"])
def test_headers_can_be_left_out(output: Format) -> None:
    it, out, _ = console(output, headers=False)
    it.rows(ROWS[:1], COLUMNS)
    assert out.getvalue().split() in (["E2", "b", "10"], ["E2,b,10"])


@pytest.mark.parametrize("output", ["table", "json", "tsv", "yaml"])
def test_quiet_prints_ids_only_in_every_format(output: Format) -> None:
    it, out, _ = console(output, quiet=True)
    it.rows(ROWS, COLUMNS)
    assert out.getvalue() == "E2\nE1\nE3\n"


def test_one_thing_is_an_object_for_programs_and_lines_for_people() -> None:
    it, out, _ = console("json")
    it.record({"id": "E1", "scans": [1, 2], "shared": True})
    assert json.loads(out.getvalue()) == {"id": "E1", "scans": [1, 2], "shared": True}
    it, out, _ = console("table")
    it.record({"id": "E1", "scans": [1, 2], "shared": True}, titles={"id": "ID"})
    assert out.getvalue() == "ID      E1\nScans   1, 2\nShared  yes\n"


# -- text that is not ours -----------------------------------------------------------------------


def test_control_characters_of_a_server_are_shown_and_never_sent() -> None:
    hostile = "a\x1b]0;owned\x07b\x9bc\u202ed\x00"
    for output in ("table", "tsv", "json", "jsonl", "yaml"):
        it, out, err = console(output)
        it.rows([{"id": hostile}], COLUMNS[:1])
        it.error(Problem(hostile, hostile, hostile))
        assert not set("\x1b\x07\x9b\u202e\x00") & set(out.getvalue() + err.getvalue())


def test_brackets_of_a_server_are_data_and_not_markup() -> None:
    it, out, _ = console(out=Terminal())
    it.rows([{"id": "[red]x[/red]"}], COLUMNS[:1])
    assert "[red]x[/red]" in out.getvalue()


def test_what_json_escapes_reads_back_as_it_was() -> None:
    it, out, _ = console("json")
    it.rows([{"id": "é\x9b\u202e\x7f\ud800"}], COLUMNS[:1])
    assert json.loads(out.getvalue()) == [{"id": "é\x9b\u202e\x7f\ud800"}]


def test_characters_that_a_stream_cannot_encode_become_escapes() -> None:
    out = Ascii()
    it, _, _ = console("tsv", out=out)
    it.rows([{"id": "é→"}], COLUMNS[:1])
    assert out.text() == "id\n\\xe9\\u2192\n"


def test_a_table_on_an_ascii_terminal_holds_no_other_character() -> None:
    class AsciiTerminal(Ascii):
        def isatty(self) -> bool:
            return True

    out = AsciiTerminal()
    it, _, _ = console(out=out)
    it.rows([{"id": "e"}], COLUMNS[:1])
    assert "ID" in out.text()


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1)])
def test_the_width_of_a_text_is_in_columns(text: str, columns: int) -> None:
    assert width(text) == columns


def test_cells_are_words() -> None:
    assert [cell(one) for one in (None, True, ["a", 1], {"k": 1})] == [
        "",
        "yes",
        "a, 1",
        '{"k": 1}',
    ]
    assert visible("a\nb") == "a\\nb"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 * 2**20, "300 MiB"), (None, "?")],
)
def test_sizes_are_for_people(count: int | None, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (None, "?")],
)
def test_durations_are_for_people(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "flag", "expected"),
    [
        ({}, "auto", True),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": ""}, "auto", True),
        ({"CLICOLOR": "0"}, "auto", False),
        ({"TERM": "dumb"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({}, "never", False),
    ],
)
def test_colour_on_a_terminal_follows_flag_then_environment(
    environ: dict[str, str], flag: str, expected: bool
) -> None:
    it, out, _ = console(out=Terminal(), environ=environ, color=flag)
    assert it.has_color(out) is expected


def test_colour_in_a_pipe_has_to_be_forced() -> None:
    it, out, _ = console()
    assert it.has_color(out) is False
    it, out, _ = console(environ={"FORCE_COLOR": "1"})
    assert it.has_color(out) is True


def test_each_stream_decides_for_itself() -> None:
    it, out, err = console(err=Terminal())
    assert (it.has_color(out), it.has_color(err)) == (False, True)


def test_results_go_to_stdout_and_words_to_stderr() -> None:
    it, out, err = console("json")
    it.say("hello")
    it.warn("careful")
    it.rows([], COLUMNS)
    assert out.getvalue() == "[]\n"
    assert err.getvalue() == "hello\nwarning: careful\n"


def test_quiet_hides_words_but_neither_warnings_nor_failures() -> None:
    it, _, err = console(quiet=True)
    it.say("hello")
    it.warn("careful")
    it.fail("session S1: cut", hint="again")
    assert err.getvalue() == "warning: careful\nfailed: session S1: cut\n   fix: again\n"


def test_an_error_is_three_lines() -> None:
    it, out, err = console()
    it.error(Problem("no project X", "HTTP 404", "xnatctl project list"))
    assert err.getvalue() == ("error: no project X\n  why: HTTP 404\n  fix: xnatctl project list\n")
    assert out.getvalue() == ""


def test_an_error_with_json_is_one_object_on_stderr() -> None:
    it, out, err = console("json")
    it.error(Problem("no project X", "HTTP 404", "list", "not-found", 5, False))
    assert json.loads(err.getvalue()) == {
        "error": "not-found",
        "code": 5,
        "message": "no project X",
        "why": "HTTP 404",
        "hint": "list",
        "retryable": False,
    }
    assert out.getvalue() == ""


def test_a_reader_that_went_away_is_no_error() -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Gone.writes += 1
            raise BrokenPipeError

    it, _, err = console(out=Gone())
    it.write("a")
    it.write("b")
    assert Gone.writes == 1
    assert err.getvalue() == ""


def test_a_question_that_nobody_can_answer_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    it, _, _ = console()
    with pytest.raises(UsageError) as caught:
        it.confirm("Delete it?")
    assert caught.value.hint == "add --yes"
    assert caught.value.exit_code == 2


# -- list options --------------------------------------------------------------------------------


def ids(rows: list[Any]) -> list[str]:
    return [row["id"] for row in rows]


def test_a_filter_is_a_glob_that_takes_capitals_for_small_letters() -> None:
    assert ids(shaped(ROWS, ["id"], Shape(("label:a*",)))) == ["E1"]
    assert ids(shaped(ROWS, ["id"], Shape(("id:e?", "n:1*")))) == ["E2"]


def test_numbers_are_ordered_as_numbers_and_rows_without_a_value_come_last() -> None:
    assert ids(shaped(ROWS, ["id"], Shape(sort_by="n"))) == ["E1", "E2", "E3"]
    assert ids(shaped(ROWS, ["id"], Shape(sort_by="n:desc"))) == ["E2", "E1", "E3"]


def test_texts_are_ordered_whatever_their_case() -> None:
    assert ids(shaped(ROWS, ["id"], Shape(sort_by="label"))) == ["E1", "E2", "E3"]


def test_the_limit_counts_after_filter_and_order() -> None:
    assert ids(shaped(ROWS, ["id"], Shape(sort_by="id:desc", limit=1))) == ["E3"]
    assert shaped(ROWS, ["id"], Shape(limit=0)) == []


@pytest.mark.parametrize("output", ["json", "csv", "table"])
def test_columns_choose_the_fields_in_every_format(output: Format) -> None:
    it, out, _ = console(output)
    it.rows(ROWS[:1], COLUMNS, shape=Shape(columns="n,id"))
    text = out.getvalue()
    assert "label" not in text.lower()
    assert text.index("10") < text.index("E2")


@pytest.mark.parametrize(
    ("shape", "option"),
    [
        (Shape(("lable:x",)), "--filter"),
        (Shape(sort_by="lable"), "--sort-by"),
        (Shape(columns="lable"), "--columns"),
    ],
)
def test_a_field_that_is_not_there_is_answered_with_the_nearest(shape: Shape, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        shaped(ROWS, ["id", "label"], shape)
        chosen(["id", "label"], ROWS, shape)
    assert caught.value.message == f"{option}: there is no field 'lable'"
    assert caught.value.hint == f"{option} label"


@pytest.mark.parametrize(
    "shape", [Shape(("label",)), Shape((":x",)), Shape(sort_by="id:up"), Shape(columns=",")]
)
def test_a_list_option_that_makes_no_sense_is_refused(shape: Shape) -> None:
    with pytest.raises(UsageError):
        shaped(ROWS, ["id"], shape)
        chosen(["id"], ROWS, shape)

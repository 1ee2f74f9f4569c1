"""`xnatctl dicom`: look at DICOM files on this machine, and change their headers. No server."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncclick as click

from xnatctl.errors import ConfigError, LocalFault, NotFound, UsageError

from .group import Group, option
from .options import Function, dry_run_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.dicom.edit import Change, Rules
    from xnatctl.engine.events import Bus

T = TypeVar("T")
ANONYMOUS = "ANONYMOUS"
SHOWN = 20

dicom = Group("dicom", help="DICOM files on this machine: inspect, validate, change, anonymize.")


def _path(function: Function) -> Function:
    return click.argument("path", type=click.Path(path_type=Path))(function)


def _recursive(function: Function) -> Function:
    """`--recursive` and `-r`, passed as `recursive`."""

    @option("-r", "short_recursive", is_flag=True, hidden=True)
    @option("--recursive", is_flag=True, help="Everything below a folder, not its files alone.")
    @functools.wraps(function)
    def wrapped(app: App, *, recursive: bool, short_recursive: bool, **rest: Any) -> Any:
        return function(app, recursive=recursive or short_recursive, **rest)

    return wrapped


def _private(function: Function) -> Function:
    return option("--private", is_flag=True, help="Private elements too.")(function)


@dicom.command("inspect")
@_path
@option(
    "-t", "--tag", "tags", multiple=True, metavar="KEYWORD", help="This element; may be repeated."
)
@_private
async def inspect(app: App, *, path: Path, tags: tuple[str, ...], private: bool) -> None:
    """Show who and what a DICOM file is of.

    \b
    Examples:
      xnatctl dicom inspect IM0001
      xnatctl dicom inspect IM0001 -t PatientID -t Modality -o json
    """
    from xnatctl.dicom import edit

    found = await _one(path, lambda: edit.inspect(path, tags, private=private))
    app.console.record(found, key="SOPInstanceUID", titles={name: name for name in found})


@dicom.command("list-tags")
@_path
@_private
async def list_tags(app: App, *, path: Path, private: bool) -> None:
    """List every element of a DICOM file but its pixels.

    \b
    Examples:
      xnatctl dicom list-tags IM0001
      xnatctl dicom list-tags IM0001 --private -o json
    """
    from xnatctl.dicom import edit

    rows = await _one(path, lambda: edit.list_tags(path, private=private))
    app.console.rows(rows, ["tag", "vr", "name", "value"], key="tag")


@dicom.command("validate")
@_path
@_recursive
async def validate(app: App, *, path: Path, recursive: bool) -> int:
    """Check that files are whole DICOM objects; ends with 1 if one is not.

    \b
    Examples:
      xnatctl dicom validate IM0001
      xnatctl dicom validate scanner-export --recursive -o json
    """
    from xnatctl.dicom import edit

    rows: list[dict[str, Any]] = []
    async with _files(app, path, recursive=recursive, verb="validate") as files:
        async for file in files:
            found = await _on_thread(edit.validate, file)
            rows.append(
                {
                    "file": str(file),
                    "valid": not found.errors,
                    "errors": list(found.errors),
                    "warnings": list(found.warnings),
                    "patient_id": found.patient_id,
                    "patient_name": found.patient_name,
                    "modality": found.modality,
                }
            )
    bad = [row for row in rows if not row["valid"]]
    summary = {"valid_count": len(rows) - len(bad), "invalid_count": len(bad), "files": rows}
    _show(app, summary, [(row["file"], row["errors"]) for row in bad])
    app.console.say(f"{len(rows) - len(bad)} valid, {len(bad)} not")
    return 1 if bad else 0


@dicom.command("modify")
@_path
@option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    required=True,
    metavar="KEYWORD=VALUE",
    help="An element and its new value; may be repeated.",
)
@_recursive
@option("-b", "--backup", is_flag=True, help="Keep each old file as NAME.bak.")
@dry_run_option
async def modify(
    app: App, *, path: Path, tags: tuple[str, ...], recursive: bool, backup: bool, dry_run: bool
) -> int:
    """Change elements of DICOM files in place, each file whole or not at all.

    \b
    Examples:
      xnatctl dicom modify IM0001 -t PatientID=P001
      xnatctl dicom modify export --recursive -t PatientID=P001 -t StudyDescription=Ageing --backup
    """
    from xnatctl.dicom.edit import Rules

    rules = Rules(set=dict(_assignment(one) for one in tags))
    _check(rules)

    async with _files(app, path, recursive=recursive, verb="modify") as files:
        rows = [
            await _change(file, rules, backup=backup, dry_run=dry_run, word="modified")
            async for file in files
        ]
    return _account(app, rows, word="modified", dry_run=dry_run)


@dicom.command("anonymize")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@option("--patient-id", metavar="ID", help=f"New patient ID.  [default: {ANONYMOUS}]")
@option("--patient-name", metavar="NAME", help=f"New patient name.  [default: {ANONYMOUS}]")
@option("--remove-private", is_flag=True, help="Remove private elements.")
@option(
    "--rules",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="YAML",
    help="What to set, remove, empty, hash and shift, instead of the usual.",
)
@_recursive
@dry_run_option
async def anonymize(
    app: App, *, source: Path, out: Path, recursive: bool, dry_run: bool, **values: Any
) -> int:
    """Write copies of DICOM files without what tells who the patient is.

    Without --rules the elements that name people and places are removed, and patient ID and name
    replaced. A rule file may say: set, remove, empty, private, shift_days, hash_uids, salt. What
    is no DICOM is not copied. The pixels are not looked at.

    \b
    Examples:
      xnatctl dicom anonymize IM0001 clean/IM0001 --patient-id P001
      xnatctl dicom anonymize export clean --recursive --rules rules.yaml
    """
    rules = _anonymizing(**values)
    _check(rules)
    place = _placed(source, out)
    rows = []
    async with _files(app, source, recursive=recursive, verb="anonymize") as files:
        async for file in files:
            target = place(file)
            row = await _change(file, rules, out=target, dry_run=dry_run, word="anonymized")
            rows.append({**row, "output": str(target)})
    return _account(app, rows, word="anonymized", dry_run=dry_run)


def _anonymizing(
    *, patient_id: str | None, patient_name: str | None, remove_private: bool, file: Path | None
) -> Rules:
    """The rules of the file, else the usual ones; what was typed wins."""
    from xnatctl.dicom.edit import IDENTIFYING, Rules

    usual = Rules(remove=IDENTIFYING, set={"PatientID": ANONYMOUS, "PatientName": ANONYMOUS})
    rules = _load(file) if file else usual
    typed = {"PatientID": patient_id, "PatientName": patient_name}
    given = {name: value for name, value in typed.items() if value is not None}
    private = "remove" if remove_private else rules.private
    return replace(rules, set={**rules.set, **given}, private=private)


def _placed(source: Path, out: Path) -> Callable[[Path], Path]:
    """Where the copy of each file goes. Raises UsageError for a place among the originals."""
    if not source.is_dir():
        if out.absolute() == source.absolute():
            raise UsageError(f"{out} is the file itself", hint="name another file")
        return lambda file: out
    if out.absolute().is_relative_to(source.absolute()):
        raise UsageError(f"{out} lies in {source}", hint="name a folder outside of it")
    return lambda file: out / file.relative_to(source)


def _load(path: Path) -> Rules:
    import yaml

    from xnatctl.dicom.edit import Rules

    try:
        return Rules.parse(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"the rule file {path} cannot be used", why=str(error)) from error
    except UsageError as error:
        raise ConfigError(f"{path}: {error.message}", why=error.why, hint=error.hint) from error


def _check(rules: Rules) -> None:
    """Refuse elements that do not exist before any file is touched."""
    from xnatctl.dicom.edit import tag_of

    for name in (*rules.set, *rules.remove, *rules.empty):
        tag_of(name)


def _assignment(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise UsageError(f"{text!r} is not KEYWORD=VALUE", hint="-t PatientID=P001")
    return name.strip(), value


async def _change(file: Path, rules: Rules, *, word: str, **how: Any) -> dict[str, Any]:
    """One file's row: what was done, or why not."""
    from xnatctl.dicom.edit import change_file
    from xnatctl.dicom.head import Unfit

    try:
        changes: list[Change] = await _on_thread(change_file, file, rules, **how)
    except Unfit as unfit:
        return {"file": str(file), "status": "skipped", "changes": [], "error": unfit.reason}
    except (LocalFault, UsageError) as error:
        return {"file": str(file), "status": "failed", "changes": [], "error": str(error)}
    # A copy is written in any case, a file that is as it should be already stays.
    status = word if changes or how.get("out") else "unchanged"
    return {"file": str(file), "status": status, "changes": [str(one) for one in changes]}


def _account(app: App, rows: list[dict[str, Any]], *, word: str, dry_run: bool) -> int:
    counts = {
        status: sum(1 for row in rows if row["status"] == status)
        for status in (word, "unchanged", "skipped", "failed")
    }
    summary = {**counts, "dry_run": dry_run, "files": rows}
    lines = [(row["file"], row["changes"] or [row.get("error") or row["status"]]) for row in rows]
    _show(app, summary, lines)
    for row in rows:
        if row["status"] == "failed":
            app.console.fail(f"{row['file']}: {row['error']}")
    done = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    app.console.say(f"{'would be: ' if dry_run else ''}{done or 'nothing was found'}")
    return 1 if counts["failed"] else 0


def _show(app: App, summary: dict[str, Any], lines: list[tuple[str, list[str]]]) -> None:
    if app.console.is_machine:
        app.console.document(summary)
        return
    for file, words in lines[:SHOWN]:
        app.console.say(f"{file}: {'; '.join(words)}")
    if len(lines) > SHOWN:
        app.console.say(f"… {len(lines) - SHOWN} more files; -o json names all of them")


async def _one(path: Path, read: Callable[[], T]) -> T:
    from xnatctl.dicom.head import Unfit

    _refuse_folder(path)
    try:
        return await _on_thread(read)
    except Unfit as unfit:
        raise LocalFault(f"{path} is no DICOM object", why=unfit.reason) from unfit


def _refuse_folder(path: Path) -> None:
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name one file in it")


async def _on_thread(function: Callable[..., T], *args: Any, **named: Any) -> T:
    from anyio import to_thread

    return await to_thread.run_sync(functools.partial(function, *args, **named))


def _below(path: Path, *, recursive: bool) -> Iterator[Path]:
    """The files that a path means, in order; backups and part files of ours are none."""
    if not path.exists():
        raise NotFound(f"there is nothing at {path}")
    if not path.is_dir():
        yield path
        return
    for one in sorted(path.rglob("*") if recursive else path.iterdir()):
        if one.is_file() and one.suffix != ".bak" and not one.name.startswith(".xnatctl-"):
            yield one


@asynccontextmanager
async def _files(
    app: App, path: Path, *, recursive: bool, verb: str
) -> AsyncIterator[AsyncIterator[Path]]:
    """The files to work on, one after another, told to the progress as they end."""
    found = await _on_thread(lambda: [(one, one.stat().st_size) for one in _below(
        path, recursive=recursive)])  # fmt: skip
    if not found:
        hint = "" if recursive else "--recursive looks into the folders below it"
        raise NotFound(f"there is no file in {path}", hint=hint)
    async with app.watching() as bus:
        yield _told(bus, path, found, verb)


async def _told(
    bus: Bus, path: Path, found: list[tuple[Path, int]], verb: str
) -> AsyncIterator[Path]:
    from xnatctl.engine.events import BytesMoved, ItemDone, UnitPlanned
    from xnatctl.engine.types import Outcome, Unit
    from xnatctl.model import Ref

    unit = Unit(str(path), "resource", Ref(""), Ref(""), label=f"{verb} {path}")
    bus.emit(UnitPlanned(unit, len(found), sum(size for _, size in found), 0))
    for file, size in found:
        yield file
        bus.emit(BytesMoved(unit.key, str(file), size))
        bus.emit(ItemDone(unit.key, Outcome(str(file), "copied", bytes=size)))

"""`xnatctl session upload-dicom`: to a DICOM receiver by C-STORE. No XNAT login is needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncclick as click

from .endurance import endurance_options
from .group import command, option
from .options import CONNECTION, SELECTION, TRANSFER, dry_run_option, workers_option

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.engine.types import Report

_FILE = click.Path(dir_okay=False, exists=True)


@command("upload-dicom")
@click.argument("path", type=click.Path(path_type=Path))
@option(
    "--host",
    required=True,
    envvar="XNAT_DICOM_HOST",
    metavar="NAME",
    group=CONNECTION,
    help="Where the receiver is (XNAT_DICOM_HOST).",
)
@option(
    "--called-aet",
    "called",
    required=True,
    envvar="XNAT_DICOM_CALLED_AET",
    metavar="TITLE",
    group=CONNECTION,
    help="Its application entity title (XNAT_DICOM_CALLED_AET).",
)
@option(
    "--port",
    type=click.IntRange(1, 65535),
    default=104,
    show_default=True,
    envvar="XNAT_DICOM_PORT",
    group=CONNECTION,
    help="Its port (XNAT_DICOM_PORT).",
)
@option(
    "--calling-aet",
    "calling",
    default="XNATCTL",
    show_default=True,
    envvar="XNAT_DICOM_CALLING_AET",
    metavar="TITLE",
    group=CONNECTION,
    help="The title under which we call (XNAT_DICOM_CALLING_AET).",
)
@option(
    "--tls",
    is_flag=True,
    envvar="XNAT_DICOM_TLS",
    group=CONNECTION,
    help="Speak TLS (XNAT_DICOM_TLS).",
)
@option(
    "--tls-ca-bundle",
    "ca_bundle",
    type=_FILE,
    envvar="XNAT_DICOM_TLS_CA_BUNDLE",
    metavar="FILE",
    group=CONNECTION,
    help="Authorities that the receiver's certificate may come from.",
)
@option(
    "--tls-cert",
    "certificate",
    type=_FILE,
    envvar="XNAT_DICOM_TLS_CERT",
    metavar="FILE",
    group=CONNECTION,
    help="Our own certificate.",
)
@option(
    "--tls-key",
    "key",
    type=_FILE,
    envvar="XNAT_DICOM_TLS_KEY",
    metavar="FILE",
    group=CONNECTION,
    help="Its key.",
)
@option("--study", metavar="UID", default="", group=SELECTION, help="Only this study.")
@option(
    "--ignore-unparsable/--no-ignore-unparsable",
    "lenient",
    default=False,
    group=TRANSFER,
    help="Leave out files that cannot be explained instead of refusing them all.",
)
@workers_option
@endurance_options
@dry_run_option
async def session_upload_dicom(
    app: App,
    *,
    path: Path,
    study: str,
    lenient: bool,
    workers: int | None,
    dry_run: bool,
    **peer: Any,
) -> int:
    """Send DICOM to a receiver by C-STORE, over several associations at once.

    PATH is what `session upload` takes. Each object counts when the receiver has answered for it;
    where it goes from there is decided by the receiver's rules. Needs the extra `dicom`.

    \b
    Examples:
      xnatctl session upload-dicom export --host xnat.example.org --called-aet XNAT --port 8104
      xnatctl session upload-dicom export --host pacs --called-aet STORE --tls --tls-ca-bundle ca
    """
    from xnatctl import routes
    from xnatctl.engine.runner import Options

    from .runs import DEFAULT_WORKERS, command_line, desk
    from .upload import exit_code

    how = Options("upload-dicom", command_line(app), workers=1, dry_run=dry_run)
    dicoms = routes.Dicoms(path, study=study, lenient=lenient)
    called = {name: value for name, value in peer.items() if value is not None}
    started = time.monotonic()
    async with desk(app, how) as work:
        report = await routes.store(
            work, dicoms, routes.Peer(**called), lines=workers or DEFAULT_WORKERS
        )
    _show(app, report, time.monotonic() - started)
    return exit_code(report)


def _show(app: App, report: Report, seconds: float) -> None:
    from xnatctl.ui.report import print_report

    if not app.console.is_machine:
        print_report(report, app.console)
        return
    failed = bool(report.units_failed or report.interrupted)
    app.console.document(
        {
            "operation": "upload-dicom",
            "source": report.source.removeprefix("file://"),
            "destination": report.sink,
            "studies": report.units_done + report.units_failed,
            "files": report.files,
            "bytes": report.bytes,
            "duration_seconds": round(seconds, 3),
            "status": ("partial" if report.files else "failed") if failed else "success",
            "left_out": [
                {"file": one.key, "code": one.code, "reason": one.reason} for one in report.left
            ],
            "errors": [one.error for one in report.problems if one.error],
            "dry_run": report.dry_run,
            "run_id": report.run_id,
        }
    )

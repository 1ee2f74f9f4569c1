"""`xnatctl auth token`: alias tokens, which stand for a login without its password."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncclick as click

from xnatctl.errors import NotFound, Refused

from .changes import Change, Consent, carry_out, consent_options, named, planned
from .group import Group
from .options import dry_run_option, list_options

if TYPE_CHECKING:
    from xnatctl.cli.app import App
    from xnatctl.ui.shape import Shape
    from xnatctl.xnat.admin import Admin

token = Group("token", help="Alias tokens: a login for scripts that ends by itself.")


@token.command("issue")
@dry_run_option
async def issue(app: App, *, dry_run: bool) -> int:
    """Have the server make a token, and print it; its secret is shown this once.

    Scripts give the alias as user name and the secret as password, such as in XNAT_USER and
    XNAT_PASS. The site says how long it lives, usually two days.

    \b
    Examples:
      xnatctl auth token issue -o json > token.json
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        if dry_run:
            return await planned(app, "issue", "token", f"for {await xnat.whoami()}")
        found = await Admin(xnat).issue_token()
    record = {
        "alias": found.get("alias"),
        "secret": found.get("secret"),
        "username": found.get("xdatUserId") or found.get("username"),
        "expires": _moment(found.get("estimatedExpirationTime")),
    }
    app.console.record(record, key="alias")
    return 0


@token.command("list")
@list_options
async def list_(app: App, *, shape: Shape) -> None:
    """List your tokens; their secrets are not shown.

    \b
    Examples:
      xnatctl auth token list
    """
    from xnatctl.xnat.admin import Admin

    async with app.xnat() as xnat:
        found = await Admin(xnat).tokens()
    rows = [
        {
            "alias": one.get("alias", ""),
            "username": one.get("xdatUserId") or "",
            "created": _moment(one.get("created")),
            "expires": _moment(one.get("estimatedExpirationTime")),
            "enabled": one.get("enabled"),
        }
        for one in found
    ]
    columns = ["alias", "username", "created", "expires", "enabled"]
    app.console.rows(rows, columns, key="alias", shape=shape)


@token.command("revoke")
@click.argument("aliases", metavar="ALIAS...", nargs=-1)
@consent_options
async def revoke(app: App, *, aliases: tuple[str, ...], consent: Consent) -> int:
    """Make tokens useless.

    \b
    Examples:
      xnatctl auth token revoke 1f0c7a2e-… --yes
    """
    from xnatctl.xnat.admin import Admin

    names = named(aliases, None, what="token")
    async with app.xnat() as xnat:
        admin = Admin(xnat)
        known = {str(one.get("alias")) for one in await admin.tokens()}
        if absent := [one for one in names if one not in known]:
            raise NotFound(
                f"no token {', '.join(absent)} of yours at {xnat.name}",
                hint="xnatctl auth token list",
            )
        changes = [_revoked(admin, one) for one in names]
        question = f"Revoke {len(names)} tokens?"
        return await carry_out(app, changes, question=question, consent=consent)


def _revoked(admin: Admin, alias: str) -> Change:
    async def do() -> None:
        await admin.revoke_token(alias)
        if any(one.get("alias") == alias for one in await admin.tokens()):
            raise Refused(f"the server answered well, and still lists token {alias}")

    return Change("revoke", f"token {alias}", do)


def _moment(value: Any) -> str:
    """Milliseconds of the server as ISO 8601 in UTC; empty where it says none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value:
        return "" if value is None else str(value)
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds")

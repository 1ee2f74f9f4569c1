"""A group with a verb that may be left out: `subject vars ID` is `subject vars show ID`."""

from __future__ import annotations

from typing import Any

import asyncclick as click

from .group import Group


class Fallback(Group):
    """`usual` is the command that is meant when none is named."""

    def __init__(self, *args: Any, usual: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.usual = usual

    async def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = (*self.list_commands(ctx), "-h", "--help")
        # A shell that completes the verb itself parses what is before it.
        is_open = not args and not ctx.resilient_parsing
        if is_open or (args and args[0] not in known):
            args = [self.usual, *args]
        return await super().parse_args(ctx, args)

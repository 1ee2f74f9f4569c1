"""`xnatctl completion`: scripts that make a shell complete what is typed.

The shell runs `xnatctl` itself for each Tab, which parses and answers without an event loop, a
configuration or the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncclick.shell_completion import get_completion_class

from .group import Group

if TYPE_CHECKING:
    from xnatctl.cli.app import App

VARIABLE = "_XNATCTL_COMPLETE"

completion = Group("completion", help="Make the shell complete commands and options.")


@completion.command("bash")
async def bash(app: App) -> None:
    """Print the script for bash.

    \b
    Examples:
      xnatctl completion bash > ~/.local/share/bash-completion/completions/xnatctl
    """
    app.console.write(script("bash"))


@completion.command("zsh")
async def zsh(app: App) -> None:
    """Print the script for zsh.

    \b
    Examples:
      xnatctl completion zsh > ~/.zfunc/_xnatctl
    """
    app.console.write(script("zsh"))


@completion.command("fish")
async def fish(app: App) -> None:
    """Print the script for fish.

    \b
    Examples:
      xnatctl completion fish > ~/.config/fish/completions/xnatctl.fish
    """
    app.console.write(script("fish"))


def script(shell: str) -> str:
    """The script of one shell, which calls back with `VARIABLE` set."""
    from .root import root

    kind = get_completion_class(shell)
    assert kind is not None, shell
    made = kind(root, {}, "xnatctl", VARIABLE)
    return (made.source_template % made.source_vars()).strip() + "\n"

"""The command ``green-screen`` and its parts, each imported when it is called."""

from __future__ import annotations

import importlib

import click

import green_screen

# Part -> where it is, and what it does in a line, so that the list of parts imports none of them.
_PARTS = {
    "measure": ("green_screen.command.measure", "Measure the energy of any program."),
    "watch": ("green_screen.command.watch", "Show the power of this machine as it changes."),
    "doctor": ("green_screen.command.doctor", "Say what can be measured here, and what to do."),
    "export": ("green_screen.command.export", "Tell a training's energy in other people's forms."),
}


class _Parts(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_PARTS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _PARTS:
            return None
        command: click.Command = getattr(importlib.import_module(_PARTS[name][0]), name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _PARTS.items()])


@click.command(cls=_Parts, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(green_screen.__version__, prog_name="green-screen")
def main() -> None:
    """What a program, a training or an experiment costs in energy."""

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


class _Experiment(click.Command):
    """A command of the experiment, which reads its options itself and has its own exit status."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.args = arguments
        return arguments

    def invoke(self, context: click.Context) -> None:
        from green_screen.command.experiment import run

        context.exit(run(self.name or "", context.args, context.command_path))


class _Parts(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        from green_screen.command.experiment import COMMANDS

        return [*_PARTS, *COMMANDS]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in _PARTS:
            command: click.Command = getattr(importlib.import_module(_PARTS[name][0]), name)
            return command
        from green_screen.command.experiment import COMMANDS

        return _Experiment(name) if name in COMMANDS else None

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from green_screen.command.experiment import COMMANDS

        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _PARTS.items()])
        with formatter.section("The experiment, where its packages are installed"):
            formatter.write_dl([(name, command.text) for name, command in COMMANDS.items()])


@click.command(cls=_Parts, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(green_screen.__version__, prog_name="green-screen")
def main() -> None:
    """What a program, a training or an experiment costs in energy."""

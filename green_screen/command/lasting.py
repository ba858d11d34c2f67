"""A command whose work and exit status do not depend on who reads its output."""

from __future__ import annotations

import click

from green_screen.output import lasting_output


class Lasting(click.Command):
    """A command that goes on where its output cannot be written."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Guard the output before an option takes it as a file."""
        context.with_resource(lasting_output())
        return super().parse_args(context, arguments)

"""``python -m green_screen``: the command ``green-screen``."""

from green_screen.command.main import main

main(prog_name="green-screen")

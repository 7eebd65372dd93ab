"""The command line: ``lineside``, or ``python -m lineside``."""

from __future__ import annotations


def main() -> None:
    """Run the command that the arguments name. Imported on demand: the program stays quick to start."""
    from lineside.commands import app

    app(prog_name="lineside")


if __name__ == "__main__":
    main()

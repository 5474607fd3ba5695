"""The `altrelu` command: everything the package does, from a shell."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the `altrelu` command with the arguments of this process."""
    from altrelu_dist.cli.streams import streams_that_hold

    with streams_that_hold():
        from altrelu_dist.cli.app import app

        app(prog_name="altrelu")

"""Groups of options: a command takes their fields, and is given the groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from altrelu_dist.cli.grouped import grouped


@dataclass(frozen=True)
class Colour:
    """A group with an argument and an option."""

    name: Annotated[str, typer.Argument()] = ""
    shade: Annotated[int, typer.Option(min=0, help="How dark.")] = 3


def test_a_command_takes_the_fields_and_is_given_the_group():
    given = []
    app = typer.Typer()

    @app.command()
    @grouped
    def paint(before: int = 1, *, colour: Colour, after: bool = False) -> None:
        """Paint."""
        given.append((before, colour, after))

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments))

    assert run("red", "--shade", "5", "--after").exit_code == 0
    assert run("--before", "2").exit_code == 0
    assert given == [(1, Colour("red", 5), True), (2, Colour(), False)]
    assert run("red", "--shade", "-1").exit_code == 2
    assert "How dark." in run("--help").output
    assert len(given) == 2

"""Groups of options that several commands take: a parameter that is a dataclass of options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

__all__ = ["grouped"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command's signature flat, as Typer reads it.

    Parameters
    ----------
    command : callable
        Each of its parameters that is annotated with a dataclass stands for the fields of it, in
        their order, with their annotations and defaults.

    Returns
    -------
    callable
        Takes the fields by their names, and calls the command with the groups they make.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name not in groups:
            flat.append(parameter)
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        flat += [
            inspect.Parameter(
                field.name, parameter.kind, default=field.default, annotation=hints[field.name]
            )
            for field in fields(groups[name])
        ]

    @functools.wraps(command)
    def ungrouped(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    ungrouped.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    ungrouped.__annotations__ = {each.name: each.annotation for each in flat} | {"return": None}
    return ungrouped

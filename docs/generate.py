"""Pages made when the documentation is built: the command reference, and files kept elsewhere.

Nothing is copied by hand: the commands' pages come from the options that the commands themselves
show by ``--help``, the others from files of the repository that are read there too.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from altrelu_dist.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"

COPIED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    **{f"deploy-{path.parent.name}.md": f"deploy/{path.parent.name}/README.md"
       for path in sorted(ROOT.glob("deploy/*/README.md"))},
}  # fmt: skip


def write_pages() -> None:
    """Write all generated pages; those that have not changed are left alone."""
    GENERATED.mkdir(exist_ok=True)
    pages = {name: copied(ROOT / source) for name, source in COPIED.items()}
    pages["commands.md"] = command_reference()
    for name, text in pages.items():
        path = GENERATED / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def copied(source: Path) -> str:
    """Text of a Markdown file, with its links as they are from `GENERATED`."""
    pages = {ROOT / path: GENERATED / name for name, path in COPIED.items()}
    pages |= {(ROOT / path).parent: GENERATED / name for name, path in COPIED.items()
              if path.startswith("deploy/")}  # fmt: skip

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        path = (source.parent / target).resolve()
        if path in pages:
            place = pages[path].name
        elif path.is_relative_to(DOCS):
            place = f"../{path.relative_to(DOCS)}"
        else:  # a file that has no page: only its name
            return "]"
        return f"]({place}{'#' if anchor else ''}{anchor})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", link, source.read_text())


def command_reference() -> str:
    """Every command with its arguments and options, as `altrelu COMMAND --help` shows them."""
    group: Any = get_command(app)
    context = group.context_class(group, info_name="altrelu")
    lines = [
        "# Command reference",
        "",
        "`altrelu COMMAND --help` shows the same text.",
        "[The command line](../guides/command-line.md) says what all commands have in common.",
        "",
        "```text",
        "altrelu [--debug] [--cluster NAME] COMMAND [OPTIONS] ARGUMENTS",
        "```",
        "",
        *parameter_tables(group, context),
    ]
    for name in group.list_commands(context):
        command = group.commands[name]
        here = command.context_class(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(here))
        usage = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), usage)
        lines += ["", f"## altrelu {name}", ""]
        lines += [inspect.cleandoc(command.help or ""), ""]
        lines += ["```text", f"altrelu {name} {usage}", "```", ""]
        lines += parameter_tables(command, here)
        if command.epilog:
            lines += ["", "```bash", command.epilog.removeprefix("Example: ").strip(), "```"]
    return "\n".join(lines) + "\n"


def parameter_tables(command: Any, context: Any) -> Iterator[str]:
    """One table for each panel of a command's help."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None)
        record = parameter.get_help_record(context)
        if record is None:
            continue
        title = panel or ("Arguments" if argument else "Options")
        panels.setdefault(title, []).append(record)
    order = sorted(panels, key=lambda title: (title != "Arguments", title != "Options"))
    for title in order:
        kind = "argument" if title == "Arguments" else "option"
        yield from ("", f"**{title}**", "", f"| {kind} | meaning |", "|---|---|")
        for names, text in panels[title]:
            yield f"| `{cell(names)}` | {cell(text)} |"


def cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return plain.replace("<", "&lt;").replace("...", "…") if "`" in plain else plain

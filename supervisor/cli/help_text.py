"""Text of `--help`, for any command and any screen width.

Called through `Command` and `Group`, the classes of all commands. A docstring is wrapped paragraph by paragraph; a line
that begins with a space, such as an example, keeps its indentation. Reads only parameter attributes that every version of
click has. Never truncates: a word wider than the screen runs past its edge.
"""

import inspect
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

MAX_COLUMNS = 100
MIN_COLUMNS = 20
TERM_COLUMNS = 26
"""The description of a longer option starts on the next line."""
_GAP = 2


class Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_of(self, ctx))


class Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_of(self, ctx))


def help_of(command: Any, context: Any) -> str:
    """Return the `--help` text of a command, as wide as the terminal."""
    columns = max(MIN_COLUMNS, min(MAX_COLUMNS, shutil.get_terminal_size().columns))
    parameters = command.get_params(context)
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    is_group = hasattr(command, "commands")
    names = ["COMMAND ..."] if is_group else map(_argument, arguments)
    usage = " ".join(["Usage:", context.command_path, "[OPTIONS]", *names])
    sections = [_filled(usage, columns, "       "), _prose(command.help or "", columns)]
    if arguments:
        rows = [(_argument(each), each.help or "") for each in arguments]
        sections.append(_section("Arguments", rows, columns))
    if is_group:
        sections += [_section(title, rows, columns) for title, rows in _commands(command).items()]
    sections.append(_section("Options", [_option(each) for each in options], columns))
    if command.epilog:
        sections.append(_filled(command.epilog, columns))
    return "\n\n".join(sections) + "\n"


def _commands(group: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the commands of a group, by panel, with the first paragraph of each."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, command in group.commands.items():
        title = command.rich_help_panel
        panel = panels.setdefault(title if isinstance(title, str) else "Commands", [])
        first_paragraph, _, _ = inspect.cleandoc(command.help or "").partition("\n\n")
        panel.append((name, " ".join(first_paragraph.split())))
    return panels


def _argument(argument: Any) -> str:
    return f"{argument.metavar}" + ("" if argument.nargs == 1 else "...")


def _option(option: Any) -> tuple[str, str]:
    """Return the option as it is typed, and its description."""
    short = [name for name in option.opts if not name.startswith("--")]
    long = [name for name in option.opts if name.startswith("--")]
    term = ", ".join([*short, *long]) if short else "    " + ", ".join(long)
    notes = []
    if not option.is_flag:
        term += f" {option.metavar}"
        if option.required:
            notes.append("required")
        elif option.show_default and option.default not in (None, ""):
            notes.append(f"default: {option.default}")
    if option.envvar:
        names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
        notes.append(f"or in {', '.join(names)}")
    return term, " ".join([option.help or "", *(f"[{each}]" for each in notes)])


def _section(title: str, rows: Iterable[tuple[str, str]], columns: int) -> str:
    rows = list(rows)
    indent = _GAP + min(TERM_COLUMNS, max(len(term) for term, _ in rows)) + _GAP
    if columns - indent < MIN_COLUMNS:
        indent = 3 * _GAP
    lines = [f"{title}:"]
    for term, description in rows:
        first = " " * _GAP + term
        if len(first) + _GAP > indent:
            lines.append(first)
            first = ""
        if description:
            lines.append(_filled(first.ljust(indent) + description, columns, " " * indent))
    return "\n".join(lines)


def _prose(text: str, columns: int) -> str:
    return "\n\n".join(_paragraph(each, columns) for each in inspect.cleandoc(text).split("\n\n"))


def _paragraph(text: str, columns: int) -> str:
    """Wrap a paragraph; lines that begin with a space stay separate lines."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and not line.startswith(" ") and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(_filled(line, columns, _hanging(line)) for line in lines)


def _hanging(line: str) -> str:
    """Return the indent of an indented line's continuation: two spaces more than its own."""
    own = len(line) - len(line.lstrip())
    return " " * (own + _GAP if own else 0)


def _filled(text: str, columns: int, indent: str = "") -> str:
    return textwrap.fill(
        text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )

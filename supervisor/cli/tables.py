"""Rows under named columns, on a screen of any width. Prints nothing itself.

    wide enough       the rows as a table; only prose is wrapped
    too narrow        each row as a block: its first cell on a line of its own, the others below it with their names

No cell is ever cut, and only prose is broken: an address stays one word that can be copied.
"""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

PROSE_COLUMNS = 20
"""Minimum width of a prose column."""
_CONTROLS = [*range(0x20), 0x7F, *range(0x80, 0xA0)]
VISIBLE = {code: 0x2400 + code if code < 0x20 else 0xFFFD for code in _CONTROLS if chr(code) not in "\n\t"}
"""Replacements for control characters: keys, reasons and names are untrusted text, and may control a terminal."""
_GAP = 3
_INDENT = "  "


class Listing:
    """Table whose columns in `numbers` are right-aligned; those in `prose` hold sentences."""

    def __init__(self, *columns: str, numbers: Sequence[str] = (), prose: Sequence[str] = ()) -> None:
        self._columns = columns
        self._numbers = frozenset(numbers)
        self._prose = frozenset(prose)
        self.rows: list[list[Text]] = []

    def add_rows(self, rows: Iterable[Sequence[str | Text]]) -> None:
        for row in rows:
            self.add_row(*row)

    def add_row(self, *cells: str | Text) -> None:
        row = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        for cell in row:
            cell.plain = cell.plain.translate(VISIBLE)
        self.rows.append(row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least_width() <= options.max_width:
            yield self._table()
            return
        for row in self.rows:
            yield from self._block(row, options.max_width)

    def _least_width(self) -> int:
        widths = [
            max([len(name), *(row[index].cell_len for row in self.rows)])
            for index, name in enumerate(self._columns)
        ]
        least = [
            min(width, PROSE_COLUMNS) if name in self._prose else width
            for name, width in zip(self._columns, widths, strict=True)
        ]
        return sum(least) + _GAP * (len(least) - 1)

    def _table(self) -> Table:
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for name in self._columns:
            made.add_column(
                name,
                justify="right" if name in self._numbers else "left",
                no_wrap=name not in self._prose,
                overflow="fold",
            )
        for row in self.rows:
            made.add_row(*row)
        return made

    def _block(self, row: list[Text], columns: int) -> Iterable[Text]:
        first, *rest = row
        yield Text(f"{self._columns[0]} ").append_text(first) if self._columns[0] in self._numbers else first
        line = Text(_INDENT)
        for name, cell in zip(self._columns[1:], rest, strict=True):
            item = Text.assemble((f"{name} ", "dim"), cell) if name else cell
            if not cell.cell_len:
                continue
            if len(line) > len(_INDENT):
                if line.cell_len + len(_INDENT) + item.cell_len > columns:
                    yield line
                    line = Text(_INDENT)
                else:
                    line.append(_INDENT)
            line.append_text(item)
        if len(line) > len(_INDENT):
            yield line

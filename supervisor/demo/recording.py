"""Recording of a demo: its printed lines, kept beside the terminal output and written as an SVG file.

A console that records renders a progress bar once for each refresh, so the recording is a second console that receives
finished lines only. The SVG loads nothing from the network: it names fonts that the viewer's machine has.
"""

import io
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import DIMMED_MONOKAI

WIDTH_COLUMNS = 92
TITLE = "planaria demo"

# rich's placeholders, without the web fonts that its own template asks for.
TEMPLATE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Recording:
    """Keeps printed lines and writes them to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._console = Console(
            file=io.StringIO(),
            record=True,
            width=WIDTH_COLUMNS,
            force_terminal=True,
            color_system="truecolor",
        )
        # Fails here, before the demo runs, if the file cannot be written.
        path.touch()

    def print(self, renderable: RenderableType) -> None:
        self._console.print(renderable, highlight=False)

    def save(self) -> None:
        self._console.save_svg(
            str(self._path), title=TITLE, theme=DIMMED_MONOKAI, code_format=TEMPLATE, unique_id="demo"
        )

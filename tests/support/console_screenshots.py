"""The pictures of docs/console.md and the README: a busy broker, the console's pages in a real Chromium.

make screenshots        writes docs/images/console-*.png
"""

import shutil
import tempfile
from pathlib import Path

from browser import NAMES, running_browser, watched_page
from console_scene import Scene
from served_console import served_console

FOLDER = Path(__file__).parents[2] / "docs" / "images"
FILL_MS = 25_000
"""Time in which charts fill."""


def main() -> None:
    chromium = next(path for name in NAMES if (path := shutil.which(name)))
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as data,
        Scene(Path(data)) as scene,
        served_console(scene.broker.endpoint) as url,
        running_browser(chromium) as browser,
    ):
        with watched_page(browser, 1280, 1060, "dark") as page:
            page.goto(url)
            page.wait_for_timeout(FILL_MS)
            page.click('.cell[data-address="partition/ORDERS/3"]')
            page.click("#detail button:has-text('Kill')")
            page.click("dialog button:has-text('Kill')")
            page.wait_for_selector("#detail .watch:not(.open)")
            page.wait_for_timeout(1_800)
            page.screenshot(path=FOLDER / "console-tree.png")
        for name, path, shown in (
            ("messages", "messages?topic=ORDERS", "#list tbody tr"),
            ("group", "group?group=billing", "#parts tbody tr"),
            ("letters", "dead-letters", "#list tbody tr"),
        ):
            with watched_page(browser, 1280, 760, "light") as page:
                page.goto(f"{url}/{path}")
                page.wait_for_selector(shown)
                page.wait_for_timeout(FILL_MS if name == "group" else 500)
                page.screenshot(path=FOLDER / f"console-{name}.png")


if __name__ == "__main__":
    main()

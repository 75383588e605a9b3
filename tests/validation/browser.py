"""A page as headless Chromium shows it: what is drawn, what sticks out, what the keyboard reaches. No driver, no library.

The page stands unchanged in frames of a width and a colour scheme each (a window of Chromium cannot be as narrow as a phone); a script of the
page around them looks at them and leaves what it saw as JSON in the DOM, which Chromium prints.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

LOOK = Path(__file__).with_name("browser.js")
SECONDS = 60


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    assert found, "no Chromium on the PATH; ./build.sh test installs it, or: apt-get install -y --no-install-recommends chromium"
    return found


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Chromium with a profile of its own in `folder`, its console on stderr."""
    fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run")
    console = ("--enable-logging=stderr", "--log-level=0", f"--user-data-dir={folder / 'profile'}")
    command = [chromium(), *fixed, *console, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)


def look_at(
    page: Path, folder: Path, widths: tuple[int, ...] = (360, 1400), schemes: tuple[str, ...] = ("light", "dark")
) -> dict[str, Any]:
    """`console`: lines of errors and warnings; `views`: what browser.js saw, by "<width> <scheme>"."""
    frames = "".join(
        f'<iframe name="{width} {scheme}" src="{page.resolve().as_uri()}" style="width:{width}px;height:2000px;border:0;color-scheme:{scheme}"></iframe>'
        for width in widths
        for scheme in schemes
    )
    around = folder / "around.html"
    text = f'<!doctype html><meta charset="utf-8"><title>frames</title>{frames}<pre id="seen"></pre><script>{LOOK.read_text()}</script>'
    around.write_text(text, encoding="utf-8")
    made = run(
        folder,
        "--allow-file-access-from-files",
        "--virtual-time-budget=20000",
        "--window-size=1500,2000",
        "--dump-dom",
        around.resolve().as_uri(),
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', made.stdout, flags=re.DOTALL)
    assert found and found[1], f"the page left nothing; console:\n{made.stderr[-3000:]}"
    console = [line for line in made.stderr.splitlines() if "CONSOLE" in line]
    return {"console": console, "views": json.loads(html.unescape(found[1]))}

"""What a real browser makes of files: it opens a page that names them all, and says what size each has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from html import unescape
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGE = """<body><script>
const named = NAMES
const once = (thing, event) => new Promise((yes, no) => { thing["on" + event] = yes; thing.onerror = no })
const picture = async name => { const i = new Image(); i.src = name; await i.decode(); return [i.naturalWidth, i.naturalHeight] }
const film = async name => {
  const v = document.createElement("video"), there = once(v, "loadeddata")
  v.preload = "auto"; v.src = name; await there
  return [v.videoWidth, v.videoHeight]
}
Promise.all(named.map(name => (name.endsWith(".mp4") ? film : picture)(name).catch(() => "broken")))
  .then(found => { document.body.textContent = "FOUND" + JSON.stringify(found) + "END" })
</script>"""


def in_browser(files: Iterable[Path], at: Path) -> list[tuple[int, int] | str]:
    """(width, height) of each picture or MP4 as a browser without a window shows it, or "broken"; skips without a browser."""
    browser = next((b for n in BROWSERS if (b := shutil.which(n))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed here (apt-get install chromium)")
    page = at / "page.html"
    page.write_text(PAGE.replace("NAMES", json.dumps([f.absolute().as_uri() for f in files])))
    for _ in range(4):  # on a busy machine its clock may run out before it has decoded anything
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", f"--user-data-dir={at / 'profile'}",
             "--virtual-time-budget=60000", "--dump-dom", page.absolute().as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if found := re.search(r"FOUND(\[.*?\])END", done.stdout):  # and not the line of the script that writes it
            break
    else:
        raise AssertionError(f"{browser} said nothing: {done.stdout[-500:]} {done.stderr[-500:]}")
    return [x if isinstance(x, str) else (x[0], x[1]) for x in json.loads(unescape(found[1]))]

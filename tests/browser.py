"""Opens a page in headless Chromium and lets a script look at it; needs no driver."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=8000",
)

_LISTEN = """<script>
window.problems = [];
addEventListener("error", (e) => problems.push(e.message || "not loaded: " + e.target.src), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => problems.push("blocked " + e.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...said) => problems.push(said.join(" "));
</script>"""

_LOOK = """<script>
addEventListener("load", async () => {
  let found;
  try {
    found = await (async () => { SCRIPT })();
  } catch (error) {
    found = { failed: String(error) };
  }
  const text = JSON.stringify({ found, problems });
  document.documentElement.replaceChildren(
    Object.assign(document.createElement("pre"), { textContent: text }));
});
</script>"""


def browser() -> str:
    """Return the browser, or skip the test where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return found


def look(page: Path, script: str, profile: Path, *, size: tuple[int, int] = (1280, 900)) -> Any:
    """Run a script in a page.

    Args:
        page: The page; it is left as it is.
        script: Body of an async function in JavaScript.
        profile: Folder for the browser's profile, which it makes.
        size: Of the window, in pixels.

    Returns:
        What the script returned, after a check that neither page nor script had a problem.
    """
    program = browser()
    text = page.read_text(encoding="utf-8")
    text = text.replace("<head>", f"<head>{_LISTEN}", 1)
    end = text.rindex("</body>")
    looked_at = page.with_name(f"look-{profile.name}.html")
    content = text[:end] + _LOOK.replace("SCRIPT", script) + text[end:]
    looked_at.write_text(content, encoding="utf-8")
    command = [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
    done = subprocess.run(
        [*command, "--dump-dom", looked_at.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    looked_at.unlink()
    said = re.search(r"<pre>(.*)</pre>", done.stdout, flags=re.DOTALL)
    assert said is not None, done.stderr[-2000:]
    answer = json.loads(html.unescape(said[1]))
    assert answer["problems"] == []
    assert "failed" not in (answer["found"] or {}), answer["found"]
    return answer["found"]

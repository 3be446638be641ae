"""Drive headless Chromium through the pipe of its DevTools protocol, without a package."""

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--remote-debugging-pipe")  # fmt: skip


class Browser:
    """One tab of a browser, the problems of its pages, and the addresses that they asked for."""

    def __init__(self, profile: Path) -> None:
        program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
        if program is None:
            pytest.skip("no Chromium: apt-get install chromium")
        self.problems, self.requests = list[str](), list[str]()
        self._buffer, self._number, self._session = b"", 0, ""
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        # Chromium reads descriptor 3 and writes 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *FLAGS, f"--user-data-dir={profile}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs_in, theirs_out),
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def open(self, page: Path | str, *, width: int = 1280, height: int = 900) -> None:
        """Open a file or an address in a window of that size, and wait until it is loaded."""
        self.resize(width, height)
        self._is_loaded = False
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.call("Page.navigate", url=url)
        while not self._is_loaded:
            self._receive()

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip

    def run(self, script: str) -> Any:
        """Run the body of an async function and return what it returns."""
        answer = self.call("Runtime.evaluate", expression=f"(async () => {{ {script} }})()",
                           awaitPromise=True, returnByValue=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code, **text)  # fmt: skip

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], 60.0)
            assert ready, "the browser does not answer"
            more = os.read(self._in, 2**20)
            assert more, "the browser has gone"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        said = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._is_loaded = True
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.problems.append(str(said))
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                self.problems.append(said["entry"]["text"])
            case "Network.requestWillBeSent" if not said["request"]["url"].startswith("data:"):
                self.requests.append(said["request"]["url"])
        return message

"""A headless Chromium for tests, spoken to over two pipes in its DevTools protocol; no driver, no port, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_SECONDS = 60
# Chromium reads from descriptor 3 and writes to 4; the pipes may have any numbers, 3 and 4 included.
LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, wanted in zip(ends, (3, 4)):
    os.dup2(end, wanted)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])
"""


def installed() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page. Its faults and every address that it asks for are kept."""

    def __init__(self, program: str, profile: Path) -> None:
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        words = [sys.executable, "-c", LAUNCHER, str(their_in), str(their_out), program, *FLAGS]
        words += [f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            words, pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_in)
        os.close(their_out)
        self._out, self._in = our_out, our_in
        self._rest = b""
        self._last = 0
        self._session: str | None = None
        self.faults: list[str] = []
        self.asked: list[str] = []
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result. Raises RuntimeError for an error."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._in, 1 << 20)
            if not more:
                raise RuntimeError("Chromium has ended")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.faults.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            case "Log.entryAdded":
                if params["entry"]["level"] in ("warning", "error"):
                    self.faults.append(params["entry"]["text"])
            case "Page.javascriptDialogOpening":
                self.faults.append(f"dialog: {params['message']}")
                self.send("Page.handleJavaScriptDialog", accept=True)

    def open(self, url: str) -> None:
        """Load an address afresh and wait until it is done."""
        self.send("Page.navigate", url="about:blank")
        self.faults.clear()
        self.asked.clear()
        self.send("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE_SECONDS
        while self.js("location.href !== 'about:blank' && document.readyState") != "complete":
            assert time.monotonic() < end, f"{url} does not load"
            time.sleep(0.02)

    def js(self, code: str) -> Any:
        """The value of an expression in the page; a promise is waited for. Raises RuntimeError where it throws."""
        result = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"].get("exception", {}).get("description")))
        return result["result"].get("value")

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press and release a key, as the keyboard does."""
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screen(self, width: int, height: int, scheme: str = "light", mobile: bool = False) -> None:
        """Set the window's size and the reader's colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def close(self) -> None:
        os.close(self._out)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)

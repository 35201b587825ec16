"""A real headless Chromium, driven over its DevTools pipe with the standard library alone.

`Browser` starts one, `open` loads a page and returns when it has loaded, `run` evaluates JavaScript
in it (outside the page's own Content-Security-Policy, as a person with developer tools would). What
the page asks of the network, and what its console says, is kept in `requests` and `console`.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE_S = 60.0


def chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


class Browser:
    """One tab. Use it as a context manager; it ends the process it started."""

    def __init__(self, path: str, *, width: int = 1240, height: int = 900) -> None:
        self._path = path
        self._size = (width, height)
        self._next_id = 0
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Chromium reads commands on descriptor 3 and answers on 4.
        shell = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            "--autoplay-policy=no-user-gesture-required",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={self._profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, self._path, *flags],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.resize(*self._size)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._session = None
            self._call("Browser.close")
        finally:
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._to)
            os.close(self._from)
            shutil.rmtree(self._profile, ignore_errors=True)

    # --- what a test does ---

    def open(self, page: Path | str) -> None:
        """Load a file or URL and wait for its load event."""
        self.events.clear()
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self._call("Page.navigate", url=url)
        self._await(lambda event: event["method"] == "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises AssertionError if it
        throws."""
        told = self._call(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as a keyboard sends it: `Tab`, ` `, `Enter`."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        facts = {"key": key, "windowsVirtualKeyCode": codes[key], **text}
        self._call("Input.dispatchKeyEvent", type="keyDown", **facts)
        self._call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def hover(self, x: float, y: float) -> None:
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def resize(self, width: int, height: int) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """Media features, e.g. `prefer(color_scheme="dark")`."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self._call("Emulation.setEmulatedMedia", features=wanted)

    def disable_javascript(self) -> None:
        self._call("Emulation.setScriptExecutionDisabled", value=True)

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        return base64.b64decode(
            self._call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        )

    @property
    def requests(self) -> list[str]:
        """URLs the page asked for since `open`, without those of data URIs."""
        asked = [
            e["params"]["request"]["url"]
            for e in self.events
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    @property
    def console(self) -> list[str]:
        """Errors and log entries since `open`: script errors, blocked content, missing files."""
        self._call(
            "Runtime.evaluate", expression="0"
        )  # a round trip, so that what was said has arrived
        said = [
            e["params"]["entry"]["text"] for e in self.events if e["method"] == "Log.entryAdded"
        ]
        thrown = [str(e["params"]) for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return said + thrown

    # --- the pipe ---

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        wanted = self._next_id
        answer = self._read_until(lambda told: told.get("id") == wanted)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _await(self, fits: Any) -> None:
        if not any(fits(event) for event in self.events):
            self._read_until(lambda told: "method" in told and fits(told))

    def _read_until(self, fits: Any) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while True:
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                told = json.loads(raw)
                if "method" in told:
                    self.events.append(told)
                if fits(told):
                    return dict(told)
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer in time"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser went away"
            self._buffer += chunk

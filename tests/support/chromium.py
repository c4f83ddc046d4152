"""Debian's Chromium, driven over the DevTools protocol, without a driver program."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars",
    "--remote-debugging-port=0",
)  # fmt: skip
#: What a key is to the page, where its text is not its name.
KEYS: Mapping[str, tuple[str, int, str]] = {
    "Tab": ("Tab", 9, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    " ": ("Space", 32, " "),
}


class Chromium:
    """One page. A context manager. `errors`: what the console, the network and the policies
    complained of; `requested`: every address that it has asked for."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program, "tools/setup.sh test installs chromium"
        self.errors: list[str] = []
        self.requested: list[str] = []
        self._folder = folder / "profile"
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._socket: ClientConnection | None = None

    def __enter__(self) -> Chromium:
        try:
            self._socket = self._stack.enter_context(
                connect(self._page(), max_size=None, compression=None, ping_interval=None)
            )
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with suppress(Exception):
            self.call("Browser.close")
        self._stack.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it does not even listen
            self._process.kill()
            self._process.wait()

    def _page(self) -> str:
        """The address of its page's WebSocket. It writes its port into its profile once it listens."""
        told = self._folder / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (told.exists() and told.read_text().count("\n")):
            assert self._process.poll() is None, "chromium ended"
            assert time.monotonic() < deadline, "chromium does not listen"
            time.sleep(0.02)
        port = told.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            pages = json.load(answer)
        return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))

    def call(self, method: str, **parameters: object) -> Any:
        assert self._socket is not None
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(30))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = found["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if found["type"] in ("error", "warning", "assert"):
                self.errors.append(str([each.get("value") for each in found["args"]]))
            case "Log.entryAdded" if found["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(found["request"]["url"])

    # -- what a test does

    def open(self, url: str, *, width: int = 1280, height: int = 860, scheme: str = "light") -> None:
        self.resize(width, height)
        self.set_scheme(scheme)
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def set_scheme(self, scheme: str) -> None:
        """What the system prefers: "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, timeout: float = 10.0) -> Any:
        """Until the expression is true, and raises nothing; its value."""
        script = f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"
        deadline = time.monotonic() + timeout
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"not in {timeout} s: {script}\n{self.text()}\n{self.errors}"
            time.sleep(0.03)
        return value

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def press(self, *keys: str, shift: bool = False) -> None:
        for key in keys:
            code, number, text = KEYS.get(key, (f"Key{key.upper()}", ord(key[:1].upper()), key))
            common = {
                "key": key,
                "code": code,
                "windowsVirtualKeyCode": number,
                "modifiers": 8 if shift else 0,
            }
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def focused(self) -> str:
        """What the element that has the focus is called."""
        return str(
            self.run(
                "(e => e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.tagName)"
                "(document.activeElement)"
            )
        )

    def tab_to(self, name: str, most: int = 60) -> None:
        """Presses Tab until what is called so has the focus."""
        seen = []
        for _ in range(most):
            self.press("Tab")
            seen.append(self.focused())
            if name in seen[-1]:
                return
        raise AssertionError(f"Tab does not reach {name!r}: {seen}")

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

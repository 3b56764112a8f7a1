"""Drive Chromium over its DevTools protocol, without a library: JSON objects that end in NUL, through two pipes.

`BROWSER` names the program; otherwise `chromium` or Chrome is looked for.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The sandbox wants a user other than root, and small shared memory is that of containers.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--allow-pre-commit-input",
)
# Seconds in which a busy machine compiles the program that a first request needs.
PATIENCE = 60.0

# The browser reads its commands from file 3 and writes to file 4, which `pass_fds` alone does not number.
RENUMBER = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for file, number in zip(ours, (3, 4)):
    os.dup2(file, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """A tab of a browser, which is asked in JavaScript and has a keyboard."""

    def __init__(self, commands: Any, answers: Any) -> None:
        """Open a tab.

        Args:
            commands: a binary file, to the browser.
            answers: a binary file, from the browser.
        """
        self._commands, self._answers = commands, answers
        self._session, self._number = "", 0
        self._events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what a method of the protocol returns."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (found := self._read()).get("id") != self._number:
            self._events.append(found)
        assert "error" not in found, found
        return found["result"]

    def _read(self) -> dict[str, Any]:
        """Return the next message of the browser."""
        parts = []
        while (part := self._read_byte()) != b"\0":
            parts.append(part)
        return json.loads(b"".join(parts))

    def _read_byte(self) -> bytes:
        """Return the next byte that the browser writes, which may not keep a test waiting for ever."""
        assert select.select([self._answers], [], [], PATIENCE)[0], "the browser says nothing"
        part = self._answers.read(1)
        assert part, "the browser ended"
        return part

    def loaded_after(self, method: str, **parameters: Any) -> None:
        """Call a method that leads to another page, and return once that page has loaded."""
        self._events.clear()
        self.call(method, **parameters)
        while "Page.loadEventFired" not in (event.get("method") for event in self._events):
            self._events.append(self._read())
        # Until a page has been painted the browser drops what is typed and clicked.
        self.ask("new Promise(painted => requestAnimationFrame(() => requestAnimationFrame(() => painted(null))))")

    def open(self, url: str) -> None:
        """Go to a page."""
        self.loaded_after("Page.navigate", url=url)

    def type(self, text: str) -> None:
        """Type a text where the cursor is."""
        self.call("Input.insertText", text=text)

    def next_field(self) -> None:
        """Press the key that leads to the next field of a form."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def click(self, selector: str) -> None:
        """Click at the middle of an element that leads to another page."""
        # It may stand below what the window shows.
        self.ask(f"document.querySelector({selector!r}).scrollIntoView()")
        box = self.ask(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        mouse = {"button": "left", "clickCount": 1} | place
        self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.loaded_after("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def ask(self, script: str) -> Any:
        """Return the JSON value of an expression in JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextlib.contextmanager
def browser_tab(profile: Path) -> Iterator[Tab]:
    """Yield a tab of a browser of its own, whose files are in `profile`; skip the test where there is no browser."""
    program = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: {', '.join(NAMES)} not found, and {VARIABLE} names none")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    arguments = [program, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", RENUMBER, str(theirs_in), str(theirs_out), *arguments],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with open(ours_out, "wb", buffering=0) as commands, open(ours_in, "rb", buffering=0) as answers:
            yield Tab(commands, answers)
    finally:
        process.kill()
        process.wait()

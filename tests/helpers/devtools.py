"""Headless Chromium driven over the DevTools protocol, with real keys and mouse."""

import json
import os
import subprocess
from contextlib import contextmanager

_KEYS = {"Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, "Enter": 13}


class Browser:
    """A page in the browser behind a pair of pipes; a zero byte separates messages."""

    def __init__(self, ask, answer, page):
        self.ask, self.answer, self.count, self.session, self.errors = ask, answer, 0, {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.session = {"sessionId": session}
        self.call("Runtime.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | self.session
        self.ask.write(json.dumps(message).encode() + b"\0")
        self.ask.flush()
        while True:
            found = json.loads(self._read())
            if found.get("method") == "Runtime.exceptionThrown" or (
                found.get("method") == "Runtime.consoleAPICalled"
                and found["params"]["type"] == "error"
            ):
                self.errors.append(found["params"])
            if found.get("id") == self.count:
                assert "error" not in found, found
                return found["result"]

    def _read(self):
        data = bytearray()
        while (byte := self.answer.read(1)) != b"\0":
            assert byte, "the browser has gone"
            data += byte
        return data

    def js(self, expression):
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition):
        """Wait up to a minute until the condition holds."""
        self.js(
            "new Promise((done, fail) => { const end = Date.now() + 60000; const look = () => "
            f"({condition}) ? done() : Date.now() > end ? fail('late') : setTimeout(look, 20);"
            "look(); })"
        )

    def key(self, name, text=""):
        code = {"windowsVirtualKeyCode": _KEYS.get(name, ord(name[0]))}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, text=text, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, **code)

    def mouse(self, kind, x, y):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1)


@contextmanager
def browsing(chromium, page, profile):
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    # the protocol uses descriptors 3 and 4
    start = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        ["bash", "-c", start, "bash", chromium, *flags, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as ask, os.fdopen(ours_in, "rb") as answer:
            yield Browser(ask, answer, page)
    finally:
        process.kill()
        process.wait()

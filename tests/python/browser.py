"""A Chromium without a screen, driven through its debugging pipe (DevTools protocol): Python's own
library is enough, there is no web socket and no port."""

import base64
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time

PATIENCE = 60.0


class Browser:
    """A running browser with one page."""

    def __init__(self, program):
        # Processes of the browser write into it for a moment after its end.
        self.profile = tempfile.TemporaryDirectory(
            prefix="deepsim-browser-", ignore_cleanup_errors=True
        )
        # Chromium reads descriptor 3 and writes 4; ours are moved out of their way.
        high = lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)  # noqa: E731
        theirs_in, ours_out = map(high, os.pipe())
        ours_in, theirs_out = map(high, os.pipe())
        command = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={self.profile.name}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ]
        if os.geteuid() == 0 or os.environ.get("CI") or not self.sandboxed():
            command.append("--no-sandbox")

        def arrange():
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*command, "about:blank"],
            preexec_fn=arrange,
            close_fds=False,  # Python's own descriptors close by themselves
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.out, self.into = ours_out, ours_in
        self.buffer, self.number, self.events = b"", 0, []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self.session = attached["sessionId"]
        except BaseException:
            self.close()
            raise

    @staticmethod
    def sandboxed():
        """Whether this kernel lets users make the namespaces that the sandbox stands on."""
        try:
            with open("/proc/sys/kernel/unprivileged_userns_clone") as f:
                return f.read().strip() == "1"
        except OSError:
            return not os.path.exists("/.dockerenv")

    session = None

    def call(self, method, **params):
        """Sends a command and gives its result; events on the way are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data) :]
        wanted = self.number
        while True:
            answer = self.receive(PATIENCE)
            if answer.get("id") == wanted:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def receive(self, patience):
        end = time.monotonic() + patience
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self.into, 1 << 20) if ready else b""
            if not part:
                self.errors.seek(0)
                told = self.errors.read().decode(errors="replace")[-3000:]
                raise RuntimeError(f"the browser ended or is silent; it wrote:\n{told}")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def run(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        made = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in made:
            raise RuntimeError(f"{script}: {made['exceptionDetails']}")
        return made["result"].get("value")

    def until(self, script, what):
        """Waits until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            if time.monotonic() > end:
                raise AssertionError(f"never came true: {what}")
            time.sleep(0.03)

    def key(self, key, code=None, number=0, text=None):
        """Presses and releases a key."""
        what = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        down = {"type": "keyDown", **what, **({"text": text} if text else {})}
        self.call("Input.dispatchKeyEvent", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def click(self, x, y):
        """Presses and releases the left mouse button."""
        at = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def size(self, width, height=900):
        """Size of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefers(self, **features):
        """What the reader's system prefers: color_scheme, reduced_motion."""
        values = [
            {"name": f"prefers-{k.replace('_', '-')}", "value": v} for k, v in features.items()
        ]
        self.call("Emulation.setEmulatedMedia", features=values)

    def shot(self, path):
        """The whole page as a PNG file."""
        made = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as f:
            f.write(base64.b64decode(made["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        os.close(self.out)
        os.close(self.into)
        self.profile.cleanup()

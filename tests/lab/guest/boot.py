"""Boots one lab guest by hand: for the lab's own tests and for reproducing by eye. A cluster's guests are the product's.

A `Guest` owns one QEMU process, started in its own process group; `cut` is a power loss, `button` the ACPI button.
Each wait is on a condition with a limit.
"""

import json
import os
import signal
import socket
import subprocess
import time

#: What makes a boot short under emulation (crypto self-tests alone cost a quarter of a second), and nothing else.
APPEND = (
    "console=ttyS0 quiet loglevel=3 panic=-1 rdinit=/init mitigations=off random.trust_cpu=on ipv6.disable=1 "
    "cryptomgr.notests apparmor=0 audit=0 init_on_alloc=0"
)


def arguments(kernel, image, append="", memory=96):
    """QEMU's arguments that every guest of the lab shares."""
    return [
        "qemu-system-x86_64", "-accel", "tcg,tb-size=32", "-M", "q35", "-m", str(memory), "-nodefaults",
        "-no-user-config", "-display", "none", "-kernel", kernel, "-initrd", image, "-append", f"{APPEND} {append}",
    ]  # fmt: skip


class Guest:
    """One running instance. Files (console, QEMU's own words, QMP socket) are in `folder`, named after `name`."""

    def __init__(self, folder, name, extra, netns=None, **shared):
        os.makedirs(folder, exist_ok=True)
        self.console, self.qmp = f"{folder}/{name}.console", f"{folder}/{name}.qmp"
        for stale in (self.console, self.qmp):
            if os.path.exists(stale):
                os.unlink(stale)
        command = ["ip", "netns", "exec", netns] if netns else []
        command += arguments(**shared) + ["-serial", f"file:{self.console}"]
        command += ["-qmp", f"unix:{self.qmp},server=on,wait=off", *extra]
        self.began = time.monotonic()
        with open(f"{folder}/{name}.qemu", "wb") as words:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
            )
        self.words = words.name

    def console_text(self):
        """What the guest wrote on its serial line so far."""
        if not os.path.exists(self.console):
            return ""
        with open(self.console, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_console(self, marker, limit=90):
        """Waits for `marker`; returns the seconds since start. Fails with the console's tail."""
        end = time.monotonic() + limit
        while marker not in self.console_text():
            if self.process.poll() is not None:
                with open(self.words, encoding="utf-8", errors="replace") as f:
                    raise AssertionError(f"qemu ended ({self.process.returncode}): {f.read()}{self.console_text()}")
            if time.monotonic() > end:
                raise AssertionError(f"no {marker!r} within {limit} s; console: {self.console_text()[-800:]!r}")
            time.sleep(0.02)
        return time.monotonic() - self.began

    def forwarded_port(self):
        """The host's port that QEMU's user network forwards to the guest."""
        shown = self._command("human-monitor-command", {"command-line": "info usernet"})
        return next(int(line.split()[3]) for line in shown.splitlines() if "HOST_FORWARD" in line)

    def _command(self, name, arguments=None):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.qmp)
            f = s.makefile("rw")
            f.readline()
            answer = {}
            for one in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": arguments or {}}):
                f.write(json.dumps(one) + "\n")
                f.flush()
                answer = json.loads(f.readline())
                while "return" not in answer:
                    if "error" in answer:
                        raise AssertionError(f"{name}: {answer['error']}")
                    answer = json.loads(f.readline())
            return answer["return"]

    def button(self):
        """Presses the ACPI power button."""
        self._command("system_powerdown")

    def cut(self):
        """Power loss, now. Also ends a guest that has ended already."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

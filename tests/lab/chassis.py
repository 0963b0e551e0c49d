"""A host's chassis: started, switched off and on. The one place that knows its command line and its control socket.

The chassis is hardware to the product: it owns the host's whole process tree, bites when it isn't petted, and
its log is what a judge reads about deaths. Here nothing is decided and nothing is measured.
"""

import os
import socket
import time

from lab import procs

START_LIMIT_S = 20.0


class Chassis:
    """One host's chassis process."""

    def __init__(self, prefix, host, netns, folders, binary):
        self.prefix, self.host, self.netns, self.folders, self.binary = prefix, host, netns, folders, binary
        self.control = f"{folders['run']}.chassis"
        self.process = None

    def argv(self, watchdog_ms):
        """Its command line; what follows `--` is the host's own init."""
        return [
            self.binary, "chassis", "--name", self.host, "--netns", self.netns, "--watchdog-timeout", f"{watchdog_ms}ms",
            "--control", self.control, "--log", self.folders["chassis_log"],
            "--", *self.init(),
        ]  # fmt: skip

    def init(self):
        """What the host runs when it has power."""
        return [self.binary, "host", "--config", self.folders["config"]]

    def start(self, watchdog_ms):
        """Plugs the chassis in; its power comes on with it. Waits until it answers."""
        if os.path.exists(self.control):
            os.unlink(self.control)
        log = self.folders["console"]
        self.process = procs.start(self.prefix, f"chassis-{self.host}", self.argv(watchdog_ms), log)
        until = time.monotonic() + START_LIMIT_S
        while not os.path.exists(self.control):
            if self.process.poll() is not None or time.monotonic() > until:
                with open(log, encoding="utf-8", errors="replace") as f:
                    raise AssertionError(f"the chassis of {self.host} didn't come up: {f.read()[-2000:]}")
            time.sleep(0.02)

    def connect(self):
        """A connection on which one order can be sent at a chosen instant."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(10.0)
        s.connect(self.control)
        return s


def order(chassis, word):
    """Gives all of them one order at one instant; returns (instant, answers). The connections are made beforehand."""
    lines = [(c, c.connect()) for c in chassis]
    at = time.monotonic_ns()
    for _, s in lines:
        s.sendall(word.encode() + b"\n")
    answers = {}
    for c, s in lines:
        answers[c.host] = s.makefile("r").readline().strip()
        s.close()
    return at, answers

"""A host's chassis: started, switched off and on, its units signalled. The one place that knows its command line, its
boot file and its panel.

The chassis is hardware to the product: it owns the host's whole process tree, bites when it isn't petted, and its log is
what a judge reads about deaths. Here nothing is decided and nothing is measured.
"""

import json
import os
import socket
import time

from lab import procs

START_LIMIT_S = 20.0
#: What the keeper's watchdog is set to, unless a test wants another.
WATCHDOG_MS = 1000


class ChassisError(Exception):
    """The panel refused an order, or doesn't answer."""


class Chassis:
    """One host's chassis process. `folders` has run, keeper, data, config, boot, console and address (see `cluster`)."""

    def __init__(self, prefix, host, netns, folders, binary):
        self.prefix, self.host, self.netns, self.folders, self.binary = prefix, host, netns, folders, binary
        #: The hardware's own program; `binary` is what is installed on the host, which a test may exchange.
        self.hardware = binary
        self.dir = f"{procs.ROOT}/{prefix}/chassis-{host}"
        self.panel, self.log = f"{self.dir}/panel.sock", f"{self.dir}/log.jsonl"
        #: Names the host's cgroup, so it has to be its own on this machine.
        self.name = f"{prefix}-{host}"
        #: Unit: (restart, after how many ms). A test changes them before the power goes on.
        self.restart = {"holder": ("always", 0), "keeper": ("always", 0), "agent": ("always", 200)}
        self.env, self.watchdog_ms = {"RUST_BACKTRACE": "1"}, WATCHDOG_MS
        self.process = None

    def slice(self):
        """The protected slice's name below the cgroup mount, inside the host's own cgroup."""
        return f"antipode-lab-{self.name}/protected"

    def units(self):
        """What the host runs when it has power, in this order."""
        dog = f"lab:{self.dir}/dog.sock"
        keeper = ["keeper", "--dir", self.folders["keeper"], "--watchdog", dog, "--timeout", f"{self.watchdog_ms}ms"]
        return {
            "holder": ["holder", "--dir", self.folders["keeper"]],
            "keeper": [*keeper, "--slice", self.slice()],
            "agent": ["agent", "--config", self.folders["config"]],
        }

    def boot_toml(self):
        """The boot file."""
        lines = []
        for name, words in self.units().items():
            restart, after = self.restart[name]
            lines += ["[[unit]]", f"name = {json.dumps(name)}", f"argv = {json.dumps([self.binary, *words])}"]
            lines += [f"restart = {json.dumps(restart)}", f"restart_after_ms = {after}"]
            pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.env.items())
            lines += [f"env = {{ {pairs} }}"]
        return "\n".join(lines) + "\n"

    def start(self):
        """Plugs the chassis in, its power on. Waits until its panel answers."""
        with open(self.folders["boot"], "w", encoding="utf-8") as f:
            f.write(self.boot_toml())
        os.makedirs(self.dir, exist_ok=True)
        argv = [self.hardware, "chassis", "--dir", self.dir, "--control", self.panel, "--name", self.name]
        argv += ["--boot", self.folders["boot"]]
        argv += ["--netns", self.netns, "--volatile", self.folders["run"]]
        self.process = procs.start(self.prefix, f"chassis-{self.host}", argv, self.folders["console"])
        until = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return self.order("status")
            except (OSError, ChassisError) as e:
                if self.process.poll() is not None or time.monotonic() > until:
                    with open(self.folders["console"], encoding="utf-8", errors="replace") as f:
                        raise ChassisError(f"{self.host} didn't come up: {f.read()[-2000:]}") from e
                time.sleep(0.02)

    def connect(self):
        """A connection on which one order can be sent at a chosen instant."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(70.0)
        s.connect(self.panel)
        return s

    def order(self, line):
        """One order to this chassis: status, on, off, reset, start UNIT, stop UNIT, signal UNIT NAME, freeze, thaw."""
        return orders([self], line)[1][self.host]

    def output(self):
        """Paths of what the units wrote, by unit."""
        return {name: f"{self.dir}/{name}.log" for name in self.units()}


def orders(chassis, line):
    """Gives all of them one order at one instant; (instant, answers by host). Connected beforehand, sent together."""
    lines = [(c, c.connect()) for c in chassis]
    at = time.monotonic_ns()
    for _, s in lines:
        s.sendall(line.encode() + b"\n")
    answers = {}
    for c, s in lines:
        with s:
            answers[c.host] = json.loads(s.makefile("r").readline() or "{}")
        if answers[c.host].get("ok") is not True:
            raise ChassisError(f"{c.host}: {line}: {answers[c.host].get('error', 'no answer')}")
    return at, answers

"""How fast each kind proves a machine off, beside the plain fence agent on the same device in the same run.

    python3 -m fencing.bench [ROUNDS]

One resident executor per device, as in the agent. Each round switches the same machine off three times: by the plain
agent (from its start to its exit, which is when a cluster manager believes it), by our native kind, and by our
`fence_agent` kind around that very agent. Ours are timed from the order to the first reading of "off"; the settle time
and the second reading, which the plain agent doesn't make, are shown apart. Exit code 1: a goal wasn't met.
"""

import json
import statistics
import subprocess
import sys
import threading
import time

from fencing import parts
from fencing.bmc import FAKE_UUID, Redfish
from fencing.case import OFF, PASSWORD, FencingCase, Outcome, order, read, seconds, wait_until, write
from fencing.hypervisor import Hypervisor
from fencing.machine import UUID, Machine

#: What other work on the machine may cost a median of few rounds: this share, and this many seconds.
SLACK = 1.10, 0.10
#: The pause between two readings of `redfish` while it waits (fencing/docs/redfish.md), and one reading.
POLL = 0.25


class Served:
    """A resident executor that does one order after another."""

    def __init__(self, case, config):
        argv = [case.program, "serve", config]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=parts.ENV)
        case.addCleanup(self.end)
        self.index = 0
        self.expect("ready")

    def expect(self, *marks):
        """The lines up to one that has a mark, with the moment at which each came."""
        lines = []
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"our program ended: {lines}")
            lines.append((time.monotonic(), line))
            if any(mark in line for mark in marks):
                return lines

    def off(self):
        """One order. (Times of its parts, the outcome, the moment of the first reading of "off")."""
        self.index += 1
        self.process.stdin.write(order("tk-p1", 120, index=self.index) + "\n")
        self.process.stdin.flush()
        lines = self.expect('"report":"finished"')
        outcome = Outcome(0, "".join(line for _, line in lines), "")
        if not outcome.evidence:
            raise AssertionError(outcome.text)
        seen = outcome.evidence["seen"][0]
        first, second = seconds(seen["first"]), seconds(seen["second"])
        began = outcome.first("level-began")
        arrived = next(at for at, line in lines if '"power":"off"' in line)
        return (outcome.first("read", OFF) - began, second - first, outcome.at - second), arrived

    def end(self):
        """Closes its input, which is its end."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


def plain(agent, options, action):
    """Runs a fence agent as a cluster manager does; seconds until it says that it is done."""
    text = "".join(f"{name}={value}\n" for name, value in {**options, "action": action}.items())
    began = time.monotonic()
    done = parts.run([agent], input=text)
    took = time.monotonic() - began
    if done.returncode not in (0, 2):
        raise AssertionError(f"{agent} {action}: {done.returncode} {done.stderr}")
    return took


def shown(values):
    """Median and spread, in seconds."""
    return f"{statistics.median(values):7.3f}  ({min(values):.3f} to {max(values):.3f})"


class Bench(FencingCase):
    """Each test is one table."""

    rounds = 5
    missed = []

    def table(self, title, rows):
        print(f"\n{title}, {self.rounds} rounds, seconds: median (least to most)", flush=True)
        for name, values in rows:
            print(f"  {name:44}{shown(values)}", flush=True)

    def goal(self, text, ours, limit):
        """Compares two medians, the second with a little slack for the machine."""
        share, more = SLACK
        met = statistics.median(ours) <= limit * share + more
        print(f"  goal: {text}: {'met' if met else 'NOT MET'}", flush=True)
        if not met:
            Bench.missed.append(text)

    def compare(self, agent, options, devices, on):
        """Rounds of the plain agent and ours, in turn, on the same machine, which `on` switches on."""
        native = Served(self, self.config(*devices[0])) if devices[0] else None
        around = Served(self, self.config(*devices[1]))
        agents, statuses, natives, arounds = [], [], [], []
        for _ in range(self.rounds):
            on()
            agents.append(plain(agent, options, "off"))
            statuses.append(plain(agent, options, "status"))
            if native:
                on()
                natives.append(native.off()[0])
            on()
            arounds.append(around.off()[0])
        rows = [(f"plain {agent} off", agents), (f"plain {agent} status", statuses)]
        for kind, times in ((devices[0] and devices[0][2], natives), ("fence_agent", arounds)):
            if times:
                first, settle, second = zip(*times)
                rows += [(f"{kind}: first \"off\"", first), (f"{kind}: then settle", settle)]
                rows += [(f"{kind}: then the second reading", second)]
        self.table(f"{devices[0][2] if devices[0] else 'fence_agent'} beside {agent}", rows)
        one, two = statistics.median(agents), statistics.median(statuses)
        if natives:
            self.goal(f"{devices[0][2]} is never slower than {agent}", [first for first, _, _ in natives], one)
        around_first = [first for first, _, _ in arounds]
        self.goal(f"fence_agent is no slower than {agent} and one status call", around_first, one + two)

    def config(self, host, *devices):
        """A configuration in a file of its own: several executors run at once."""
        devices = [device for device in devices if "\n" in device]
        self.count = getattr(self, "count", 0) + 1
        text = read(super().config(host, *devices))
        return write(f"{self.folder}/fencing-{self.count}.toml", text)

    def test_ipmi(self):
        machine = Machine(self)
        options = {"ip": "127.0.0.1", "ipport": machine.port, "username": "admin", "password": PASSWORD}
        options.update({"lanplus": 1, "cipher": 3})

        def on():
            machine.switch_on()
            wait_until(machine.is_on, "the machine is on")

        native = (f'uuid = "{UUID}"', machine.device(), "ipmi")
        self.compare("fence_ipmilan", options, (native, ("", machine.agent())), on)

    def test_redfish(self):
        hypervisor = Hypervisor(self)
        uuid = hypervisor.domain("app1", running=False)
        redfish = Redfish(self, hypervisor.uri)
        options = {"ip": "127.0.0.1", "ipport": redfish.port, "username": "admin", "password": PASSWORD}
        options.update({"ssl_insecure": 1, "systems_uri": f"/redfish/v1/Systems/{uuid}"})
        native = (f'uuid = "{uuid}"', redfish.device(uuid), "redfish")
        self.compare("fence_redfish", options, (native, ("", redfish.agent(uuid))), lambda: redfish.switch_on(uuid))

    def test_redfish_after_the_real_change(self):
        redfish = Redfish(self)
        served = Served(self, self.config(f'uuid = "{FAKE_UUID}"', redfish.device(FAKE_UUID)))
        lags, readings = [], []
        for _ in range(self.rounds):
            if redfish.power(FAKE_UUID) != "On":
                redfish.switch_on(FAKE_UUID)
            changed = []
            watch = threading.Thread(target=self.watch, args=(redfish, changed, readings))
            watch.start()
            arrived = served.off()[1]
            watch.join(120)
            lags.append(arrived - changed[0])
        self.table("redfish, after the power really changed (the emulator's fake driver)", [
            ("curl: one reading", readings), ("redfish: first \"off\" after curl first saw it", lags),
        ])  # fmt: skip
        # curl sees the change up to one reading of its own late, so ours may even be the earlier one.
        limit = POLL + 2 * statistics.median(readings)
        self.goal("redfish sees the change within one poll interval (and one reading)", lags, limit)

    def watch(self, redfish, changed, readings):
        """Reads by curl without pause until the machine is off."""
        while not changed:
            began = time.monotonic()
            state = redfish.power(FAKE_UUID)
            readings.append(time.monotonic() - began)
            if state == "Off":
                changed.append(time.monotonic())

    def test_dummy(self):
        status = f"{self.folder}/status"
        options = {"type": "file", "status_file": status}
        device = 'name = "dummy"\nkind = "fence_agent"\nagent = "fence_dummy"\nwired = "the bench"\n'
        device += f'options = {{ type = "file", status_file = "{status}" }}'
        write(status, "on")
        self.compare("fence_dummy", options, (None, ("", device)), lambda: write(status, "on"))


def main():
    """Runs every table."""
    Bench.rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    import unittest

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Bench)
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    print(json.dumps({"missed": Bench.missed}))
    sys.exit(0 if result.wasSuccessful() and not Bench.missed else 1)


if __name__ == "__main__":
    main()

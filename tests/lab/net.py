"""Sites of a lab as network namespaces, and the WAN between them.

    PREFIX-tokyo, PREFIX-osaka, PREFIX-nagoya, PREFIX-client     the sites and the client
    PREFIX-wan                                                   the cables' other ends and the emulator (`wan`)

    PREFIX-HOST                                                  a host that is a machine of its own (`machines`)

Two networks: `wan` (interface wan0, 10.77.0.N) carries what agents say to each other; `seg` (bridge br-seg with cable
seg0, 10.78.0.N) is the layer-2 segment on which guests keep their address; the client is on `seg` only. Several labs
run side by side under different prefixes. `up` first clears what an earlier, crashed lab of the same prefix left.

    python3 -m lab.net up|down|heal|stats PREFIX · cut PREFIX A B [oneway] · shape PREFIX A B key=value...
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from lab import procs

SITES = ("tokyo", "osaka", "nagoya")
CLIENT = "client"
NUMBERS = {"tokyo": 1, "osaka": 2, "nagoya": 3, "client": 100}
NETS = ("wan", "seg")
#: One way, between any two sites; twice this is the round trip. The client sits nearer to the segment.
DELAY_MS, CLIENT_DELAY_MS = 20.0, 2.0
#: One way, between machines of a site.
SITE_DELAY_MS = 0.1
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class NetError(Exception):
    """A namespace, a cable or the emulator could not be had; the text carries the tool's own words."""


def address(site, net="wan"):
    """The site's address in one of the networks."""
    return f"10.{77 if net == 'wan' else 78}.0.{NUMBERS[site]}"


def _run(argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise NetError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _batch(netns, lines):
    argv = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(lines) + "\n", capture_output=True, text=True)
    if done.returncode != 0:
        raise NetError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Net:
    """One lab's networks. All methods but `up` and `down` need it to be up.

    Hosts of a site share its namespace, and what they say to each other never leaves it; those in `machines` (host: site and
    address on `wan`) have their own, on a cable of their own. `gather_ms`: see `wan`.
    """

    def __init__(self, prefix, machines=None, gather_ms=0.0):
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", prefix):
            raise NetError(f"prefix {prefix!r}: 1 to 8 lower-case letters and digits, a letter first")
        self.prefix, self.machines, self.gather_ms = prefix, dict(machines or {}), gather_ms
        self.control = f"{procs.ROOT}/{prefix}/wan.sock"

    def netns(self, site):
        """The namespace of a site, of a machine, of `client` or of `wan`."""
        return f"{self.prefix}-{site}"

    def up(self, seed=1):
        """Builds it all and waits until the emulator answers; 40 ms round trips between sites."""
        self.down()
        procs.folder(self.prefix)
        _run(["ip", "netns", "add", self.netns("wan")])
        # The WAN's ports must never speak for themselves: no addresses, no IPv6 neighbour discovery.
        _run(["ip", "netns", "exec", self.netns("wan"), "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
        cables = {"wan": [], "seg": []}
        for site in (*SITES, CLIENT):
            _run(["ip", "netns", "add", self.netns(site)])
            for net in NETS if site != CLIENT else ("seg",):
                self._cable(site, net)
                cables[net].append(f"{net}-{site}:{site}")
        for host in self.machines:
            _run(["ip", "netns", "add", self.netns(host)])
            self._cable(host, "wan")
            cables["wan"].append(f"wan-{host}:{host}")
        argv = [sys.executable, "-m", "lab.wan", "--control", self.control, "--seed", str(seed)]
        argv += ["--gather", str(self.gather_ms)]
        argv += [f"{net}={','.join(ports)}" for net, ports in cables.items()]
        env = {**os.environ, "PYTHONPATH": TESTS, "PYTHONDONTWRITEBYTECODE": "1"}
        log = f"{procs.ROOT}/{self.prefix}/wan.log"
        emulator = procs.start(self.prefix, "wan", argv, log, netns=self.netns("wan"), env=env)
        self._await_emulator(emulator, log)
        self.heal()

    def _cable(self, site, net):
        ns, port, end = self.netns(site), f"{net}-{site}", f"{net}0"
        _batch(self.netns("wan"), [f"link add {port} type veth peer name {end} netns {ns}", f"link set {port} up"])
        if site == CLIENT or net == "wan":
            own = self.machines[site][1] if site in self.machines else address(site, net)
            lines = [f"link set {end} up", f"addr add {own}/24 brd + dev {end}"]
        else:
            lines = ["link add br-seg type bridge stp_state 0 forward_delay 0", f"link set {end} master br-seg up"]
            lines += ["link set br-seg up", f"addr add {address(site, net)}/24 brd + dev br-seg"]
        _batch(ns, ["link set lo up", *lines])
        # The emulator carries frames as they will be on a cable: whole checksums, at most one MTU.
        for where, interface in ((ns, end), (self.netns("wan"), port)):
            off = ["tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"]
            _run(["ip", "netns", "exec", where, "ethtool", "-K", interface, *off])

    def _await_emulator(self, emulator, log, limit=20.0):
        until = time.monotonic() + limit
        while True:
            try:
                return self.ask({})
            except OSError as e:
                if emulator.poll() is not None or time.monotonic() > until:
                    with open(log, encoding="utf-8", errors="replace") as f:
                        raise NetError(f"the WAN emulator doesn't answer: {f.read()[-2000:]}") from e
                time.sleep(0.02)

    def down(self):
        """Ends every process inside the namespaces and the recorded ones, and removes the namespaces. Idempotent."""
        names = [self.netns(s) for s in ("wan", *SITES, CLIENT, *self.machines)]
        there = [n for n in names if os.path.exists(f"/run/netns/{n}")]
        procs.end_all(self.prefix)
        for name in there:
            pids = [int(p) for p in _run(["ip", "netns", "pids", name], check=False).split()]
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            left = procs.wait_gone(pids)
            if left:
                raise NetError(f"{name}: processes {left} survived SIGKILL for 10 s")
        for name in there:
            _run(["ip", "netns", "del", name])
        shutil.rmtree(f"{procs.ROOT}/{self.prefix}", ignore_errors=True)

    def ask(self, question):
        """One question to the emulator; its answer. The instant of a change is in `at_ns` (CLOCK_MONOTONIC)."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5.0)
            s.connect(self.control)
            s.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(s.makefile("r").readline())
        if "error" in answer:
            raise NetError(answer["error"])
        return answer

    def _ends(self, site, net):
        """The cables of a site in a network."""
        machines = [host for host, (at, _) in self.machines.items() if at == site and net == "wan"]
        return [] if (net, site) == ("wan", CLIENT) else [site, *machines]

    def _paths(self, a, b, nets):
        pairs = [(net, x, y) for net in nets for x in self._ends(a, net) for y in self._ends(b, net)]
        return pairs + [(net, y, x) for net, x, y in pairs]

    def shape(self, a, b, nets=NETS, oneway=False, **change):
        """Sets delay_ms, jitter_ms, loss (0..1), reorder or cut between two sites, from now on; `oneway`: a→b only."""
        paths = self._paths(a, b, nets)
        if oneway:
            paths = paths[: len(paths) // 2]
        return self.ask({"set": [[*path, change] for path in paths]})["at_ns"]

    def cut(self, a, b, oneway=False, nets=NETS):
        """Nothing passes any more from a to b and, unless `oneway`, from b to a. Returns the instant."""
        return self.shape(a, b, nets=nets, oneway=oneway, cut=True)

    def isolate(self, site, nets=NETS):
        """Cuts one site off from all others, and from the client when `seg` is among the nets, at one instant."""
        others = [s for s in (*SITES, CLIENT) if s != site]
        paths = [p for other in others for p in self._paths(site, other, nets)]
        return self.ask({"set": [[*path, {"cut": True}] for path in paths]})["at_ns"]

    def heal(self):
        """Every path as after `up`: no cuts, no loss, no jitter, the usual delays. Returns the instant."""
        everywhere = (*SITES, CLIENT)
        changes = []
        for i, a in enumerate(everywhere):
            for b in everywhere[i + 1 :]:
                delay = CLIENT_DELAY_MS if CLIENT in (a, b) else DELAY_MS
                whole = {"delay_ms": delay, "jitter_ms": 0, "loss": 0.0, "cut": False, "reorder": False}
                changes += [[*path, whole] for path in self._paths(a, b, NETS)]
        for site in SITES:
            ends = self._ends(site, "wan")
            near = {**whole, "delay_ms": SITE_DELAY_MS}
            changes += [["wan", x, y, near] for x in ends for y in ends if x != y]
        return self.ask({"set": changes})["at_ns"]


def main(words):
    """The command line, for a person beside a lab that was left up."""
    verb, net, rest = words[0], Net(words[1]), words[2:]
    if verb == "shape":
        change = {k: float(v) for k, v in (w.split("=") for w in rest[2:])}
        print(net.shape(rest[0], rest[1], **change))
    elif verb == "cut":
        print(net.cut(rest[0], rest[1], oneway="oneway" in rest[2:]))
    elif verb == "stats":
        print(json.dumps(net.ask({}), indent=1))
    elif verb in ("up", "down", "heal"):
        print(getattr(net, verb)() or f"{verb} {net.prefix}")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)

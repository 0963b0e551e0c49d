"""A host inside a virtual machine: its lease proves nothing, because whoever runs the machine can stop its clock.

    python3 -m live.classc [--only DEED] [--folder F]

The home site's host is a QEMU guest with the product inside; the other two are lab hosts. It is declared lost after each
deed, and then nobody may be given the group: no `self-fenced` may be recorded, the group is held with a reason and a
person's command, and there are never two. What the old side does when it wakes is reported: how long what ran before lives
on, and whether the host was granted the group anew, on its own word. With a fence device (`…-fenced`: an adapter of kind
`command` whose panel ends the QEMU and sees it gone) the group is taken over.

The last deed is the negative control: a build that takes such a lease for proof must show two.

A run in which an instance left too few stamps to tell its life, or the observer stalled, is invalid: it is repeated, twice at
most, and never counts as passed.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time

from demo import facts
from lab import cluster, net, oracle, records, spec
from live.hostguest import HostGuest, compiled, image

HOST, AWAY_HOST, WITNESS_HOST = "tk-1", "os-1", "ng-1"
GUEST_CHANNEL = "/dev/vport0p2"
#: An emulated machine on a busy one is late by seconds; it is not to lose its lease, or its dog's patience, by that.
DOG, WATCHDOG_WORST, LEASE_S = "3s", "3.3s", 14.0
#: Far longer than any lease and takeover.
HELD_S = 2 * LEASE_S
#: Longer than what is left of a lease.
WAKE_S = LEASE_S + 4.0
CONTROL, PLANTED = "control-lease-is-proof", "ledger.class_c_self_fenced,engine.waits_for_any_class"
DEEDS = ("power-cut", "freeze", "pause", "power-cut-fenced", "freeze-fenced", "pause-fenced", CONTROL)
ATTEMPTS, INVALID = 3, 3
ADAPTER = f"{os.path.dirname(net.TESTS)}/examples/adapters/fence-panel"


class Panel(threading.Thread):
    """The guest's power button, as a fence device reaches it: lines of text over a unix socket, one JSON object back."""

    def __init__(self, path, guest):
        super().__init__(daemon=True)
        self.guest = guest
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)

    def run(self):
        """Serves until the process ends."""
        while True:
            peer, _ = self.listener.accept()
            with peer:
                peer.settimeout(10.0)
                try:
                    line = peer.makefile("r").readline().strip()
                    peer.sendall(json.dumps(self.answer(line)).encode() + b"\n")
                except OSError:
                    continue

    def answer(self, line):
        """`off` kills the machine and waits until it is gone; `status` looks whether it is there."""
        if line == "off":
            self.guest.kill()
        power = "off" if self.guest.is_gone() else "on"
        return {"ok": line in ("off", "status"), "power": power, "host": HOST, "lab": True}


class GuestCluster(cluster.Cluster):
    """A lab cluster whose home host is a guest; `fenced`: with a fence device for it; `planted`: a fault in all builds."""

    def __init__(self, prefix, folder, fenced=False, planted=""):
        super().__init__(prefix, folder, spec.Options(failback="manual"))
        del self.chassis[HOST]
        self.guest, self.life, self.fenced, self.planted = None, None, fenced, planted
        if planted:
            self.binary += "-mutants"
            for box in self.chassis.values():
                box.binary, box.env["ANTIPODE_MUTANTS"] = self.binary, planted

    def up(self):
        """Networks, observer, certificates, files; then power to the lab hosts and to the guest."""
        subprocess.run(["rm", "-rf", f"{self.folder}/hosts"], check=True)
        self.net.up()
        self._certificates_of_all()
        self.tool("observer", "--out", f"{self.folder}/stamps.jsonl", self.observer)
        self.wait_for(lambda: os.path.exists(self.observer), "the observer listens", 20)
        self.power_on(AWAY_HOST, WITNESS_HOST)
        self._plug_guest()

    def _certificates_of_all(self):
        authority, tls = f"{self.folder}/authority", f"{self.folder}/guest-tls"
        subprocess.run(["rm", "-rf", authority, tls], check=True)
        self._product("pki", "init", "--dir", authority, "--cluster", spec.CLUSTER)
        outs = {h: box.folders["tls"] for h, box in self.chassis.items()} | {HOST: tls}
        for host, site in self.hosts.items():
            self._product("pki", "issue", "--dir", authority, "--host", host, "--site", site, "--out", outs[host])
        for host, box in self.chassis.items():
            os.makedirs(box.folders["data"])
            with open(box.folders["config"], "w", encoding="utf-8") as f:
                f.write(spec.agent_toml(host, self.hosts, box.folders))

    def _plug_guest(self):
        """The guest takes the site's place on the WAN: its card is bridged to the cable."""
        ns, address = self.net.netns("tokyo"), net.address("tokyo")
        for line in ("addr flush dev wan0", "link add br-w type bridge stp_state 0 forward_delay 0", "link set wan0 master br-w",
                     "tuntap add tap0 mode tap", "link set tap0 master br-w", "link set br-w up", "link set tap0 up"):  # fmt: skip
            subprocess.run(["ip", "-n", ns, *line.split()], check=True)
        inside = {"data": "/tmp/data", "run": "/run/antipode/agent", "tls": "/etc/antipode", "keeper": "/run/antipode/keeper",
                  "slice": "/sys/fs/cgroup/antipode", "address": self.addresses}  # fmt: skip
        files = {"etc/antipode/agent.toml": spec.agent_toml(HOST, self.hosts, inside)}
        for name in ("ca.pem", "identity.pem"):
            with open(f"{self.folder}/guest-tls/{name}", encoding="ascii") as f:
                files[f"etc/antipode/{name}"] = f.read()
        images = f"{self.folder}/guest"
        boot = image(images, self.binary, files)
        self.life = compiled("life.c", images)
        card = "virtio-net-pci,netdev=n,csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ufo=off"
        extra = ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no,vnet_hdr=off", "-device", card]
        extra += ["-chardev", f"socket,id=ob,path={self.observer}"]
        extra += ["-device", "virtserialport,chardev=ob,name=org.antipode.observer"]
        env = f"NET={address}/24 DOG_TIMEOUT={DOG}" + (f" ANTIPODE_MUTANTS={self.planted}" if self.planted else "")
        self.guest = HostGuest(images, HOST, boot, extra, netns=ns, env=env)
        self.guest.wait_up()
        Panel(self._panel(), self.guest).start()

    def _panel(self):
        return f"{os.path.dirname(self.observer)}/panel.sock"

    def is_led_outside(self):
        """Whether a host leads whose agent can be asked from here. Without a spec a leader in the guest has no reason to
        give way: it is told to, by its own agent."""
        leader = self.leader()[0]
        if leader == HOST:
            self.guest.attempt(f"/antipode quorum transfer {WITNESS_HOST} --socket /run/antipode/agent/admin.sock")
        return leader in self.chassis

    def apply(self):
        """Gives the cluster its spec: one group without data, run by an adapter on both sides."""
        lines = ["[cluster]", f'name = "{spec.CLUSTER}"', "lab = true", 'declare = "lazy"', 'round_trip_max = "80ms"']
        lines += [f'watchdog_worst = "{WATCHDOG_WORST}"', "[cluster.timing]", f'lease = "{LEASE_S:.0f}s"']
        for site in net.SITES:
            lines += ["[[site]]", f'name = "{site}"', *(["witness = true"] if site == spec.WITNESS else [])]
        for host, site in self.hosts.items():
            lines += ["[[host]]", f'name = "{host}"', f'site = "{site}"']
            has_device = self.fenced and host == HOST
            lines += [f'serial = "{HOST}"', 'fencing = [["plug"]]'] if has_device else ['fencing = [["self"]]']
        if self.fenced:
            lines += ["[[device]]", 'name = "plug"', 'kind = "command"', f'program = "{ADAPTER}"']
            lines += [f'settings = {{ panel = "{self._panel()}" }}']
        lines += ["[[group]]", f'name = "{spec.GROUP}"', 'tier = "auto"', 'home = "tokyo"']
        lines += ['accept = ["self-fenced", "powered-off"]']
        for site, host, program, out in (("tokyo", HOST, "/bin/life", GUEST_CHANNEL), ("osaka", AWAY_HOST, self.life, self.observer)):
            lines += [f"[group.at.{site}]", 'kind = "command"', f'hosts = ["{host}"]', f'program = "{program}"']
            lines += [f'params = {{ out = "{out}" }}']
        path = f"{self.folder}/cluster.toml"
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        self.cli(self.leader()[0], "apply", path, changes=True)

    def down(self):
        """Ends the guest, then everything else."""
        if self.guest:
            self.guest.cut()
        super().down()

    def stamps(self, since=0):
        """Stamps from a moment on."""
        return [s for s in oracle.stamps(records.read(f"{self.folder}/stamps.jsonl")) if s["t_ns"] >= since]

    def facts(self, kind):
        """Facts of a kind in the lab hosts' journals about the guest host."""
        found = []
        for host in self.chassis:
            found += [facts.flat(r) for r in records.read(self.journal(host))]
        return [e for e in found if e["kind"] == kind and facts.host_of(e) == HOST]


class Seen:
    """What doesn't hold, why it can't be told, and figures."""

    def __init__(self, deed):
        self.problems, self.invalid, self.figures = [], [], {"deed": deed}

    def need(self, held, what):
        """A fact that must be so."""
        if not held:
            self.problems.append(what)

    def word(self):
        """PASSED, FAILED or INVALID."""
        return "FAILED" if self.problems else "INVALID" if self.invalid else "PASSED"


def begin(c, seen):
    """Brings the workload up at home, and looks at what is said before the disaster."""
    c.wait_for(c.is_led_outside, "a leader outside the guest", 120)
    c.apply()
    c.wait_for(lambda: [s for s in c.stamps() if s["host"] == HOST], "the workload lives at home", 180)
    c.wait_for(lambda: c.leader()[1] == spec.WITNESS and c.group().get("state") == "running", "running, led by the witness", 120)
    host = next(h for h in c.status()["hosts"] if h["name"] == HOST)
    seen.need(host["class"] == "C", f"the guest's class is {host['class']}, not C")
    possible = c.group()["automatic_failover"]["possible"]
    seen.need(possible == c.fenced, f"automatic failover is called {'possible' if possible else 'impossible'}")


def story(c, deed, seen):
    """One deed."""
    begin(c, seen)
    kind = {CONTROL: "pause"}.get(deed, deed.removesuffix("-fenced"))
    since = c.stamps()[-1]["t_ns"]
    # Nothing is cut before it was seen to live for a while.
    c.wait_for(lambda: c.stamps()[-1]["t_ns"] - since > 2_000_000_000, "it lives for a while", 30)
    at = time.monotonic_ns()
    {"power-cut": c.guest.cut, "freeze": c.guest.freeze, "pause": lambda: c.guest.qmp("stop")}[kind]()
    before = [s for s in c.stamps() if s["host"] == HOST]
    c.wait_for(lambda: c.facts("host-lost"), f"{HOST} is declared lost", 60)
    if deed == CONTROL:
        c.wait_for(lambda: [s for s in c.stamps(at) if s["host"] == AWAY_HOST], "given away without proof", 120)
        seen.figures["evidence"] = evidence(c)
        wake(c, kind, before, seen)
    elif c.fenced:
        c.wait_for(lambda: [s for s in c.stamps(at) if s["host"] == AWAY_HOST], "taken over", 120)
        seen.figures["evidence"] = evidence(c)
        seen.need(seen.figures["evidence"] == ["powered-off"], f"the evidence is {seen.figures['evidence']}")
        seen.need(c.guest.is_gone(), "the machine still runs")
        seen.figures["outage_ms"] = round((min(s["t_ns"] for s in c.stamps(at) if s["host"] == AWAY_HOST) - at) / 1e6)
    else:
        held(c, at, seen)
        if kind != "power-cut":
            wake(c, kind, before, seen)
    judge(c, at, seen, overlap_wanted=deed == CONTROL)


def evidence(c):
    """Kinds of evidence that the ledger accepted about the guest host."""
    return sorted({facts.evidence_of(e)["kind"] for e in c.facts("evidence-accepted")})


def held(c, at, seen):
    """Nothing proves anything: nobody starts it, and it is said what a person can do."""
    until = time.monotonic() + HELD_S
    while time.monotonic() < until and not any(s["host"] == AWAY_HOST for s in c.stamps(at)):
        time.sleep(0.2)
    seen.need(not any(s["host"] == AWAY_HOST for s in c.stamps(at)), "the group was started at osaka without proof")
    kinds = evidence(c)
    seen.need(not kinds, f"evidence was recorded: {kinds}")
    group = c.group()
    seen.figures |= {"state": group.get("state"), "fence_gate": group["gates"]["fence"]["because"]}
    explained = json.loads(c.cli(WITNESS_HOST, "explain", "group", spec.GROUP, "-o", "json"))
    seen.figures["next"] = explained["next"]
    seen.need(any("fence override" in line for line in explained["next"]), f"no command is named: {explained['next']}")


def wake(c, kind, before, seen):
    """Lets the old side go on; what it did, and whether the host was given the group anew."""
    old = {s["guest_boot"] for s in before}
    woke = time.monotonic_ns()
    c.guest.thaw() if kind == "freeze" else c.guest.qmp("cont")
    until = time.monotonic() + WAKE_S
    while time.monotonic() < until and c.guest.process.poll() is None:
        time.sleep(0.1)
    after = [s["t_ns"] for s in c.stamps(woke) if s["guest_boot"] in old]
    lived = (max(after) - woke) / 1e6 if after else 0.0
    again = any(s["host"] == HOST and s["guest_boot"] not in old for s in c.stamps(woke))
    seen.figures |= {"woken_stamps": len(after), "woken_lived_ms": round(lived, 1), "granted_anew": again}
    seen.figures["woken_was_reset"] = c.guest.process.poll() is not None
    seen.need(lived <= LEASE_S * 1000, f"what ran before lived on for {lived:.0f} ms: longer than its lease")


def judge(c, at, seen, overlap_wanted):
    """Never two, by the observer's stamps alone, and whether that can be told."""
    lived = c.stamps()
    overlap = len(oracle.overlapping(lived))
    seen.figures["overlap_samples"] = overlap
    if overlap_wanted:
        seen.need(overlap > 0, "a lease was taken for proof, and no two lived: this control proves nothing")
    else:
        seen.need(not overlap, f"{overlap} stamps inside another's life")
    shares = {}
    for boot, (first, last) in oracle.lives(lived).items():
        one = [s for s in lived if s["guest_boot"] == boot]
        # A machine that stands still stamps nothing: its own time before the deed counts.
        last = min(last, at) if first < at else last
        count, due = oracle.count_and_due(one, one[0]["epoch"], first, last)
        shares[f"{one[0]['host']}:{one[0]['epoch'] % (1 << 48)}"] = round(count / max(due, 1), 2)
        if last - first > 500_000_000 and not oracle.is_enough(count, due):
            seen.invalid.append(f"{one[0]['host']}: {count} stamps of {due} due")
    seen.figures["stamps_share"] = shares
    for ms in oracle.blind_ms(records.read(f"{c.folder}/stamps.jsonl")):
        seen.invalid.append(f"observer stalled {ms:.0f} ms at a change of instance")


def attempt(options, deed):
    """One run of a deed on a cluster of its own."""
    folder, seen = os.path.abspath(f"{options.folder}/{deed}"), Seen(deed)
    subprocess.run(["rm", "-rf", folder], check=True)
    os.makedirs(folder)
    with GuestCluster(options.prefix, folder, deed.endswith("-fenced"), PLANTED if deed == CONTROL else "") as c:
        try:
            story(c, deed, seen)
        except AssertionError as e:
            seen.problems.append(f"{e}\n{c.guest.console()[-800:]}")
        c.collect()
    return seen


def play(options, deed):
    """Plays a deed until it can be told; 0 passed, 1 failed, 3 can't be told."""
    for number in range(1, ATTEMPTS + 1):
        seen = attempt(options, deed)
        print(f"{seen.word()} {json.dumps(seen.figures)}", flush=True)
        for text in seen.problems:
            print(f"  DOESN'T HOLD: {text}", flush=True)
        if seen.word() != "INVALID":
            return 1 if seen.problems else 0
        print(f"  can't tell ({'; '.join(seen.invalid)}), run {number} of {ATTEMPTS}", flush=True)
    return INVALID


def main():
    """Plays the deeds, each on a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=DEEDS)
    parser.add_argument("--prefix", default="clc")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/classc")
    options = parser.parse_args()
    results = [play(options, deed) for deed in ([options.only] if options.only else DEEDS)]
    return 1 if 1 in results else max(results)


if __name__ == "__main__":
    sys.exit(main())

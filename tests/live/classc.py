"""A host inside a virtual machine: its lease proves nothing, because whoever runs the machine can stop its clock.

    python3 -m live.classc [--only DEED] [--folder F]

The home site's host is a QEMU guest with the product inside; the other two are lab hosts. It is declared lost after each
deed, and then nobody may be given the group: no `self-fenced` may be recorded, the group is held with a reason and a
person's command, and there are never two. What the old side does when it wakes is reported. With a fence device (`…-fenced`:
an adapter of kind `command` whose panel ends the QEMU and sees it gone) the group is taken over.
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
#: Far longer than any lease and takeover.
HELD_S = 20.0
WAKE_S = 8.0
DEEDS = ("power-cut", "freeze", "pause", "power-cut-fenced", "freeze-fenced", "pause-fenced")
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
    """A lab cluster whose home host is a guest; `fenced`: with a fence device for it."""

    def __init__(self, prefix, folder, fenced=False):
        super().__init__(prefix, folder, spec.Options(failback="manual"))
        del self.chassis[HOST]
        self.guest, self.life, self.fenced = None, None, fenced

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
        self.guest = HostGuest(images, HOST, boot, extra, netns=ns, env=f"NET={address}/24")
        self.guest.wait_up()
        Panel(self._panel(), self.guest).start()

    def _panel(self):
        return f"{os.path.dirname(self.observer)}/panel.sock"

    def apply(self):
        """Gives the cluster its spec: one group without data, run by an adapter on both sides."""
        lines = ["[cluster]", f'name = "{spec.CLUSTER}"', "lab = true", 'declare = "lazy"', 'round_trip_max = "80ms"']
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


def begin(c, need):
    """Brings the workload up at home, and looks at what is said before the disaster."""
    c.wait_for(lambda: c.leader()[0], "a leader", 120)
    c.apply()
    c.wait_for(lambda: [s for s in c.stamps() if s["host"] == HOST], "the workload lives at home", 180)
    c.wait_for(lambda: c.leader()[1] == spec.WITNESS and c.group().get("state") == "running", "running, led by the witness", 120)
    host = next(h for h in c.status()["hosts"] if h["name"] == HOST)
    need(host["class"] == "C", f"the guest's class is {host['class']}, not C")
    possible = c.group()["automatic_failover"]["possible"]
    need(possible == c.fenced, f"automatic failover is called {'possible' if possible else 'impossible'}")


def story(c, deed):
    """One deed; (problems, figures)."""
    problems, figures = [], {"deed": deed}
    need = lambda held, what: None if held else problems.append(what)  # noqa: E731
    begin(c, need)
    deed = deed.removesuffix("-fenced")
    at = time.monotonic_ns()
    {"power-cut": c.guest.cut, "freeze": c.guest.freeze, "pause": lambda: c.guest.qmp("stop")}[deed]()
    c.wait_for(lambda: c.facts("host-lost"), f"{HOST} is declared lost", 60)
    if c.fenced:
        c.wait_for(lambda: [s for s in c.stamps(at) if s["host"] == AWAY_HOST], "taken over", 120)
        figures["evidence"] = sorted({facts.evidence_of(e)["kind"] for e in c.facts("evidence-accepted")})
        need(figures["evidence"] == ["powered-off"], f"the evidence is {figures['evidence']}")
        need(c.guest.is_gone(), "the machine still runs")
    else:
        held(c, at, need, figures)
        if deed != "power-cut":
            figures |= wake(c, deed)
    lived = c.stamps()
    need(not oracle.overlapping(lived), f"{len(oracle.overlapping(lived))} stamps inside another's life")
    return problems, figures


def held(c, at, need, figures):
    """Nothing proves anything: nobody starts it, and it is said what a person can do."""
    until = time.monotonic() + HELD_S
    while time.monotonic() < until and not any(s["host"] == AWAY_HOST for s in c.stamps(at)):
        time.sleep(0.2)
    need(not any(s["host"] == AWAY_HOST for s in c.stamps(at)), "the group was started at osaka without proof")
    kinds = sorted({facts.evidence_of(e)["kind"] for e in c.facts("evidence-accepted")})
    need(not kinds, f"evidence was recorded: {kinds}")
    group = c.group()
    figures |= {"state": group.get("state"), "fence_gate": group["gates"]["fence"]["because"]}
    explained = json.loads(c.cli(WITNESS_HOST, "explain", "group", spec.GROUP, "-o", "json"))
    figures["next"] = explained["next"]
    need(any("fence override" in line for line in explained["next"]), f"no command is named: {explained['next']}")


def wake(c, deed):
    """Lets the old side go on; what it did."""
    woke = time.monotonic_ns()
    c.guest.thaw() if deed == "freeze" else c.guest.qmp("cont")
    until = time.monotonic() + WAKE_S
    while time.monotonic() < until and c.guest.process.poll() is None:
        time.sleep(0.1)
    after = [s["t_ns"] for s in c.stamps(woke)]
    lived = (max(after) - woke) / 1e6 if after else 0.0
    return {"woken_stamps": len(after), "woken_lived_ms": round(lived, 1), "woken_was_reset": c.guest.process.poll() is not None}


def main():
    """Plays the deeds, each on a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=DEEDS)
    parser.add_argument("--prefix", default="clc")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/classc")
    options = parser.parse_args()
    status = 0
    for deed in [options.only] if options.only else DEEDS:
        folder = os.path.abspath(f"{options.folder}/{deed}")
        subprocess.run(["rm", "-rf", folder], check=True)
        os.makedirs(folder)
        with GuestCluster(options.prefix, folder, deed.endswith("-fenced")) as c:
            try:
                problems, figures = story(c, deed)
            except AssertionError as e:
                problems, figures = [f"{e}\n{c.guest.console()[-800:]}"], {"deed": deed}
            c.collect()
        print(f"{'FAILED' if problems else 'PASSED'} {json.dumps(figures)}", flush=True)
        for text in problems:
            print(f"  DOESN'T HOLD: {text}", flush=True)
        status = status or (1 if problems else 0)
    return status


if __name__ == "__main__":
    sys.exit(main())

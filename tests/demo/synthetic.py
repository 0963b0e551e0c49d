"""A whole run's raw files, made up, for the judge's tests: good as it stands, spoilt by the test that says so."""

import json
import os

from lab.guest import build

MS = 1_000_000
BOOT_OFFSET = 5_000_000_000
KILLED = 100_000 * MS
MACS = {"tokyo": "52:54:00:00:00:01", "osaka": "52:54:00:00:00:02"}
#: (epoch, host, first answer, last answer) in ms relative to the kill.
PHASES = [(1, "tk-1", -6000, -40), (2, "os-1", 6600, 20000), (3, "tk-1", 23500, 30000)]
TIMING = {
    "watchdog_worst": 1100, "delta_hw": 50, "delta_io": 50, "keeper_period": 100, "renewal": 250, "lost_renewals": 4,
    "rtt_max": 80, "jitter": 20, "rho_ppm": 1000, "lease": 3700, "beat": 50, "detection": 350, "one_way": 20,
}  # fmt: skip


class Raw:
    """The files as Python values; a test changes them, then `write`s."""

    def __init__(self):
        clocks = {"monotonic_ns": 1000, "boottime_ns": 1000 + BOOT_OFFSET}
        begin = {"kind": "begin", "t_ns": KILLED - 8000 * MS, "clocks": clocks}
        self.timing = dict(TIMING)
        self.cluster = {
            "kind": "cluster", "t_ns": begin["t_ns"], "lost_site": "tokyo", "takeover_site": "osaka", "witness": "nagoya",
            "declare": "eager", "group": "erp", "hosts": {"tk-1": "tokyo", "os-1": "osaka", "ng-1": "nagoya"},
        }  # fmt: skip
        self.run = [dict(begin, who="demo"), self.cluster]
        self.run.append({"kind": "mark", "name": "leader", "t_ns": KILLED - 900 * MS, "host": "ng-1", "site": "nagoya"})
        self.run.append({"kind": "power", "t_ns": KILLED + 3 * MS, "what": "off", "hosts": ["tk-1"], "at_ns": KILLED})
        self.client, self.stamps = [dict(begin, who="client")], [dict(begin, who="observer")]
        self.events = {"ng-1": [], "os-1": []}
        self.chassis = {"tk-1": [self.hardware(30, "power-off", because="button")]}
        self.log = []
        for phase in PHASES:
            self._phase(*phase)
        self._decide()
        self.tokyo, self.osaka = list(self.log), list(self.log)

    def _phase(self, epoch, host, since, until):
        site = self.cluster["hosts"][host]
        boot = f"boot-{epoch}"
        for ms in range(since, until, 100):
            at, n = KILLED + ms * MS, len(self.log)
            self.log.append((n, f"c{n}"))
            answer = {"n": n, "nonce": f"c{n}", "epoch": epoch, "host": host, "boot": boot}
            self.client.append({"kind": "request", "t_ns": at - 30 * MS, "done_ns": at, **answer})
            self.client.append({"kind": "neighbour", "t_ns": at, "mac": MACS[site], "state": "reachable"})
        for seq, ms in enumerate(range(since - 200, until + 30, 10)):
            stamp = {"epoch": epoch, "host": host, "seq": seq, "guest_boot": boot}
            self.stamps.append({"kind": "stamp", "t_ns": KILLED + ms * MS, "conn": epoch, **stamp})

    def _decide(self):
        tk, os_1 = {"host": "tk-1", "he": 1}, {"host": "os-1", "he": 1}
        for at in list(self.events):
            self.event(at, 350 if at == "ng-1" else 360, event="suspect", peer="tk-1", because="silent")
            self.applied(at, 410, 40, "HostLost", of=tk, because="automatic")
            self.applied(at, 3700, 41, "EvidenceAccepted", of=tk, kind="SelfFenced", scope="Host", lab=True)
            self.applied(at, 3760, 42, "Granted", group="erp", to=os_1, epoch=2)
            self.applied(at, 20100, 60, "PlanOpened", plan=7, kind="Failback", group="erp", because="home is stable")
        figures = {"compared_bytes": 64 << 20, "differing_bytes": 200_000, "copied_bytes": 262_144, "pause_ms": 12}
        self.event("os-1", 15000, event="resync-done", group="erp", **figures)

    def event(self, at, ms, **line):
        """One more line in a host's journal, `ms` after the kill."""
        self.events.setdefault(at, []).append({"t_boot_ns": KILLED + ms * MS + BOOT_OFFSET, **line})

    def hardware(self, since, event, **fields):
        """One line of a chassis' log, `since` ms after the kill."""
        return {"at_boottime_ns": KILLED + since * MS + BOOT_OFFSET, "event": event, **fields}

    def applied(self, at, ms, index, name, **fields):
        """One more log entry seen applied by a host."""
        self.event(at, ms, event="applied", index=index, fact={name: fields})

    def find(self, at, name):
        """The first line of a host's journal about a fact."""
        return next(e for e in self.events[at] if name in e.get("fact", {}))

    def forget(self, name):
        """Removes a fact or an event from every journal."""
        for at, lines in self.events.items():
            self.events[at] = [e for e in lines if name not in e.get("fact", {}) and e["event"] != name]

    def write(self, folder):
        """Writes it all as a run leaves it."""
        for kind in ("events", "chassis", "disks"):
            os.makedirs(f"{folder}/{kind}", exist_ok=True)
        files = {"run": self.run, "client": self.client, "stamps": self.stamps}
        files |= {f"events/{h}": lines for h, lines in self.events.items()}
        files |= {f"chassis/{h}": lines for h, lines in self.chassis.items()}
        for name, lines in files.items():
            with open(f"{folder}/{name}.jsonl", "w", encoding="utf-8") as f:
                f.writelines(json.dumps(line) + "\n" for line in lines)
        with open(f"{folder}/timing.json", "w", encoding="utf-8") as f:
            json.dump(self.timing, f)
        for name, log in (("tokyo", self.tokyo), ("osaka", self.osaka)):
            lines = [json.dumps({"n": n, "nonce": nonce}) for n, nonce in log]
            build.data_disk(f"{folder}/disks/{name}.raw", requests=lines)

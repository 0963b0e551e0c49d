"""Judges one run of the demonstration from its raw files alone, and writes report.json.

    python3 -m demo.judge FOLDER [--report PATH]

Exit status: 0 every point holds · 1 a point doesn't hold · 2 raw files unreadable · 3 the run is invalid (it can't tell:
too few stamps while serving, or the machine stalled what plays its hardware). It shares no code with the product and
takes no statement of it for a fact that can be had elsewhere: service is what the client got, life is what the observer
received, writes are what the raw disks hold; of the product's journal it takes when it decided what.
"""

import argparse
import collections
import json
import sys

from demo import expected, facts
from lab import oracle

#: All hosts of a site are seen dead within this after the order, or it wasn't one instant.
ONE_INSTANT_MS = 250
#: The last look at the neighbour entry before the kill may be this old: the client looks at least once a second.
NEIGHBOUR_AGE_NS = 2_000_000_000
#: An eager declaration that took longer wasn't eager.
EAGER_MAX_MS = 2000.0
#: Signals of a death and of a takeover may be this far apart from their records.
NEAR_NS = 1_000_000_000
MS = 1e6


class Judge:
    """Builds the report of one run; `problems` and `invalid` collect what doesn't hold and what can't be told."""

    def __init__(self, folder):
        self.run = facts.Run(folder)
        self.problems, self.invalid = [], []
        self.cluster = next((r for r in self.run.marks if r.get("kind") == "cluster"), None)
        if self.cluster is None:
            raise facts.RawError("run.jsonl has no cluster record")
        self.home, self.away = self.cluster["lost_site"], self.cluster["takeover_site"]
        self.answers = self.run.answers()

    def hosts(self, site):
        """Names of a site's hosts."""
        return sorted(h for h, s in self.cluster["hosts"].items() if s == site)

    def site(self, host):
        """The site of a host, or None when nobody knows it."""
        return self.cluster["hosts"].get(host)

    def need(self, held, what):
        """Notes `what` as a problem unless `held`."""
        if not held:
            self.problems.append(what)

    def report(self):
        """The whole report."""
        killed = self.killed_at()
        report = {"api_version": 1, "lab": True, "clock": "CLOCK_MONOTONIC", "killed_at_ns": killed}
        report |= self.decisions(killed)
        report |= self.service(killed)
        report["expected"] = self.expectations(report)
        report |= self.writes()
        report |= self.life(killed)
        report["resync"] = self.resync(killed)
        report |= self.way_home(killed, report)
        report["load"] = [r for r in self.run.marks if r.get("kind") == "load"]
        report["verdict"] = "failed" if self.problems else "invalid" if self.invalid else "passed"
        return report | {"problems": self.problems, "invalid": self.invalid}

    def killed_at(self):
        """The instant of the order that cut all power; every chassis saw its host's tree gone right after it."""
        lost = self.hosts(self.home)
        cut = [r for r in self.run.marks if r.get("kind") == "power" and r["what"] == "off" and set(lost) <= set(r["hosts"])]
        if not cut:
            raise facts.RawError("run.jsonl has no power cut that names every host of the site")
        killed = cut[0]["at_ns"]
        for host in lost:
            dark = [e["t_ns"] for e in self.run.chassis if e["at"] == host and e["kind"] == "power-off" and e["t_ns"] >= killed]
            self.need(dark, f"the chassis of {host} never saw it dark")
            after = (dark[0] - killed) / MS if dark else 0
            self.need(after <= ONE_INSTANT_MS, f"{host} was dark only after {after:.0f} ms: not at one instant")
        return killed

    def decisions(self, killed):
        """Suspected, declared, fenced, granted: from the journals of the hosts that live on."""
        lost, run = self.hosts(self.home), self.run
        alive = [h for h in self.cluster["hosts"] if h not in lost]
        first = {}
        for e in run.events:
            if e["kind"] == "suspect" and e["t_ns"] >= killed and e["at"] in alive and facts.host_of(e) in lost:
                first.setdefault(e["at"], e["t_ns"])
        majority = self.cluster.get("voters", len(self.cluster["hosts"])) // 2 + 1
        moments = sorted(first.values())
        suspected = moments[majority - 1] if len(moments) >= majority else None
        declared = self.last_of([self.about("host-lost", h, killed) for h in lost])
        evidence = [facts.evidence_of(e) for e in self.once("evidence-accepted", killed) if facts.host_of(e) in lost]
        fenced = self.last_of([self.about("evidence-accepted", h, killed) for h in lost])
        granted = run.first("granted", killed)
        moments = {"suspected": suspected, "declared": declared, "fenced": fenced, "granted": granted and granted["t_ns"]}
        found = {f"{k}_ms": None if v is None else round((v - killed) / MS, 1) for k, v in moments.items()}
        leader = run.mark("leader") or {}
        at_witness = leader.get("site") == self.cluster["witness"]
        self.need(at_witness, f"the leader was at {leader.get('site')}, not at the witness")
        declare = self.cluster.get("declare")
        self.need(declare == "eager", f"declare is {declare!r}, not 'eager'")
        self.check_order(found)
        self.check_evidence(evidence, lost)
        if granted:
            to = facts.host_of(granted, "to")
            self.need(self.site(to) == self.away, f"the ticket went to {to}, not to a host of {self.away}")
        return {"leader_site": leader.get("site"), "declare": declare, "evidence": evidence, **found}

    def about(self, kind, host, after):
        """When the first event of a kind about a host was journalled anywhere."""
        found = (e for e in self.run.events if e["kind"] == kind and e["t_ns"] >= after)
        return next((e["t_ns"] for e in found if facts.host_of(e) == host), None)

    def last_of(self, moments):
        """The latest, or None when one is missing."""
        return None if None in moments or not moments else max(moments)

    def once(self, kind, after):
        """Events of a kind, each log entry once although several journals hold it."""
        seen = {}
        for e in self.run.events:
            if e["kind"] == kind and e["t_ns"] >= after:
                seen.setdefault(e.get("index", e["t_ns"]), e)
        return list(seen.values())

    def check_order(self, found):
        """Each gate was passed, and none before the one before it."""
        last, name_before = 0.0, "the kill"
        for name in ("suspected_ms", "declared_ms", "fenced_ms", "granted_ms"):
            at = found[name]
            self.need(at is not None, f"no journal says when it was {name.removesuffix('_ms')}")
            if at is not None:
                self.need(at >= last, f"{name.removesuffix('_ms')} at {at} ms, before {name_before} at {last} ms")
                last, name_before = at, name.removesuffix("_ms")
        declared = found["declared_ms"]
        self.need(declared is None or declared <= EAGER_MAX_MS, f"declared after {declared} ms: that isn't eager")

    def check_evidence(self, evidence, lost):
        """Every dead host is proven dead, by the lab's own kind of proof, in the log."""
        for host in lost:
            mine = [e for e in evidence if e["host"] == host]
            self.need(mine, f"no evidence for {host} was accepted")
            for e in mine:
                whole = e["host_epoch"] is not None and e["log_index"] is not None
                self.need(whole, f"evidence for {host} lacks host epoch or log index: {e}")
                self.need(e["lab"] is True, f"evidence for {host} isn't marked as the lab's: {e}")

    def service(self, killed):
        """When the client was served again, at the same address behind another MAC."""
        before = [a for a in self.answers if a["done_ns"] <= killed]
        self.need(before, "no answer before the kill")
        after = [a for a in self.answers if a["t_ns"] >= killed]
        serving = after[0]["done_ns"] if after else None
        self.need(after, "no answer after the kill")
        if before and after:
            was, now = before[-1], after[0]
            self.need(self.site(was["host"]) == self.home, f"before the kill {was['host']} answered, not {self.home}")
            self.need(self.site(now["host"]) == self.away, f"after the kill {now['host']} answered, not {self.away}")
            self.need(now["epoch"] > was["epoch"], f"epoch {now['epoch']} follows {was['epoch']}")
        held = [r for r in self.run.neighbours() if r["t_ns"] <= killed]
        fresh = bool(held) and killed - held[-1]["t_ns"] <= NEIGHBOUR_AGE_NS and held[-1]["state"] == "reachable"
        self.need(fresh, f"the client's neighbour entry wasn't fresh at the kill: {held[-1:] or 'none'}")
        then = [r for r in self.run.neighbours() if serving and r["t_ns"] >= serving - NEAR_NS and r["mac"]]
        if fresh and then:
            self.need(any(r["mac"] != held[-1]["mac"] for r in then), "the address is served behind the same MAC as before")
        return {"serving_ms": None if serving is None else round((serving - killed) / MS, 1)}

    def expectations(self, report):
        """The protocol's intervals; a proof earlier than its interval is a fault, anything later is said."""
        missing = [k for k in expected.REQUIRED if k not in self.run.timing]
        if missing:
            raise facts.RawError(f"timing.json lacks {', '.join(missing)}")
        self.need(expected.lease_is_sound(self.run.timing), "the lease in force is shorter than the protocol allows")
        spans = expected.intervals(self.run.timing)
        outside = []
        for name, (low, high) in spans.items():
            at = report[name]
            if at is not None and not low <= at <= high:
                outside.append({"figure": name, "ms": at, "why": "early" if at < low else "late"})
                if at < low and name in ("fenced_ms", "granted_ms"):
                    what = f"{name.removesuffix('_ms')} after {at} ms"
                    self.problems.append(f"{what}: a lease can't have run out before {low} ms")
        return {**spans, "outside": outside}

    def writes(self):
        """Answered ids against the disks: every one on the last owner's disk and on the standby's, none twice."""
        promised = [(a["n"], a["nonce"]) for a in self.answers]
        self.need(promised, "nothing was answered")
        owner = self.answers[-1]["host"] if self.answers else None
        lost = {}
        for name in (self.home, self.away):
            log = self.run.disk_log(name)
            if log is None:
                raise facts.RawError(f"disks/{name}.raw is missing")
            lost[name] = sorted(set(promised) - set(log))
            self.need(not lost[name], f"{len(lost[name])} acknowledged writes aren't on {name}'s disk: {lost[name][:3]}")
            self.need([n for n, _ in log] == list(range(len(log))), f"the log on {name}'s disk has gaps or repeats")
        twice = sum(c - 1 for c in collections.Counter(n for n, _ in promised).values())
        twice += sum(c - 1 for c in collections.Counter(nonce for _, nonce in promised).values())
        self.need(twice == 0, f"{twice} ids were answered twice")
        self.lost_by_site = lost
        count = len(lost[self.site(owner) if self.site(owner) in lost else self.home])
        return {"acknowledged_writes": len(promised), "acknowledged_writes_lost": count, "duplicate_answers": twice}

    def life(self, killed):
        """Stamps: enough of them while serving, and never two instances at one time."""
        found = oracle.stamps(self.run.stamps)
        by_epoch, due = {}, {}
        for epoch in sorted({a["epoch"] for a in self.answers}):
            mine = [a for a in self.answers if a["epoch"] == epoch]
            key = str(epoch)
            by_epoch[key], due[key] = oracle.count_and_due(found, epoch, mine[0]["done_ns"], mine[-1]["done_ns"])
            if not oracle.is_enough(by_epoch[key], due[key]):
                self.invalid.append(f"epoch {epoch}: {by_epoch[key]} stamps of {due[key]} due while serving")
            hosts = {s["host"] for s in found if s["epoch"] == epoch} | {a["host"] for a in mine}
            self.need(len(hosts) == 1, f"epoch {epoch} was lived by {sorted(hosts)}")
        samples = len(oracle.overlapping(found))
        self.need(samples == 0, f"two instances lived at one time: {samples} stamps inside another's life")
        dead = {s["guest_boot"] for s in found if s["t_ns"] < killed and self.site(s["host"]) == self.home}
        late = [s for s in found if s["t_ns"] > killed + NEAR_NS and s["guest_boot"] in dead]
        self.need(not late, f"{len(late)} stamps of the dead site's guest arrived after the kill")
        self.check_stalls()
        return {"stamps": {"by_epoch": by_epoch, "due": due}, "overlap_samples": samples}

    def check_stalls(self):
        """Whatever played hardware or bore witness must have run when it mattered."""
        for ms in oracle.blind_ms(self.run.stamps):
            self.invalid.append(f"observer stalled {ms:.0f} ms at a change of instance")
        for e in self.run.chassis:
            if e["kind"] == "stalled":
                self.invalid.append(f"host stalled {e.get('ms')} ms ({e['at']})")

    def resync(self, killed):
        """What bringing the old side's copy up to date cost, from the journal of the host that led it."""
        done = self.run.first("resync-done", killed)
        self.need(done is not None, "no journal tells of a finished resync")
        keys = ("compared_bytes", "differing_bytes", "copied_bytes", "pause_ms")
        found = {k: done.get(k) if done else None for k in keys}
        self.need(done is None or None not in found.values(), f"the resync lacks figures: {found}")
        if done and None not in found.values():
            self.need(found["compared_bytes"] > 0, "the resync compared nothing")
            self.need(found["copied_bytes"] >= found["differing_bytes"], "the resync copied less than differed")
        return found

    def way_home(self, killed, report):
        """The failback: by itself, without a command, nothing lost."""
        away = [a for a in self.answers if a["done_ns"] > killed and self.site(a["host"]) == self.away]
        left = away[-1]["done_ns"] if away else killed
        home = [a for a in self.answers if a["done_ns"] > left and self.site(a["host"]) == self.home]
        self.need(away and home, "the guest didn't go home")
        planned = [e for e in self.once("plan-opened", killed) if str(e.get("of_kind")).lower() == "failback"]
        self.need(planned, "no failback was planned")
        commands = self.run.commands(killed, home[0]["done_ns"] if home else self.run.marks[-1]["t_ns"])
        automatic = bool(planned) and commands == 0
        self.need(commands == 0, f"{commands} commands were given between kill and homecoming")
        gap = round((home[0]["done_ns"] - away[-1]["done_ns"]) / MS, 1) if home else None
        since = {(a["n"], a["nonce"]) for a in away}
        lost = [w for w in self.lost_by_site[self.home] if w in since]
        failback = {"automatic": automatic, "operator_commands": commands, "gap_ms": gap}
        failback["acknowledged_writes_lost"] = len(lost)
        directions = [{"kind": "failover", "from": self.home, "to": self.away, "gap_ms": report["serving_ms"]}]
        if home:
            directions.append({"kind": "failback", "from": self.away, "to": self.home, "gap_ms": gap})
        return {"failback": failback, "directions": directions}


def main(words=None):
    """Judges, writes the report, says what doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--report")
    options = parser.parse_args(words)
    try:
        report = Judge(options.folder).report()
    except facts.RawError as e:
        print(f"can't judge: {e}", file=sys.stderr)
        return 2
    with open(options.report or f"{options.folder}/report.json", "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    for text in report["problems"]:
        print(f"DOESN'T HOLD: {text}", file=sys.stderr)
    for text in report["invalid"]:
        print(f"invalid: {text}", file=sys.stderr)
    return {"passed": 0, "failed": 1, "invalid": 3}[report["verdict"]]


if __name__ == "__main__":
    sys.exit(main())

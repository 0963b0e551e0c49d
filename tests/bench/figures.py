"""How fast a lost site is declared, fenced and taken over, and how fast it is admitted again: measured in the lab.

    python3 -m bench.figures [--rounds 5] [--rtt 40] [--leader outside|inside] [--declare eager|lazy] [--folder DIR]

Each round kills the site that runs the guest at one instant, waits for the takeover, gives power back, and waits until the
pair is in sync again; the next round kills the other site. Every figure comes from the hosts' own journals, on one clock
(all hosts of the lab share the machine's). A round in which the machine stalled the lab's hardware is thrown away and
said; nothing is asserted: a figure is for people to compare, on a machine whose load stands beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from demo import expected, facts
from lab import net, records, spec
from lab.cluster import Cluster

MS = 1e6
#: Two sites lost within a minute set the brake, and then nothing is taken over by itself.
BRAKE_S = 63


class Round:
    """What the journals say of one kill."""

    def __init__(self, run, cluster, killed, lost_site, at_end):
        self.run, self.killed, self.end = run, killed, at_end
        self.lost = [h for h, s in cluster.hosts.items() if s == lost_site]
        self.alive = [h for h in cluster.hosts if h not in self.lost]

    def events(self, kind, since=None):
        """Events of a kind in the journals of those that live, from the kill on."""
        since = self.killed if since is None else since
        return [e for e in self.run.events if e["kind"] == kind and since <= e["t_ns"] <= self.end]

    def about_lost(self, kind):
        """The first event of a kind that is about the lost hosts."""
        return next((e for e in self.events(kind) if e["at"] in self.alive and facts.host_of(e) in self.lost), None)

    def figures(self, timing):
        """Milliseconds after the kill by name; None where a journal says nothing."""
        first = {}
        for e in self.events("suspect"):
            if e["at"] in self.alive and facts.host_of(e) in self.lost:
                first.setdefault(e["at"], e["t_ns"])
        suspected = sorted(first.values())[1] if len(first) > 1 else None
        marks = {"suspected": suspected}
        for name, kind in (("declared", "host-lost"), ("fenced", "evidence-accepted")):
            found = self.about_lost(kind)
            marks[name] = found and found["t_ns"]
        granted = next((e for e in self.events("granted") if e["at"] in self.alive), None)
        marks["granted"] = granted and granted["t_ns"]
        found = {k: None if v is None else (v - self.killed) / MS for k, v in marks.items()}
        found["beyond the bound"] = self.beyond(granted, timing)
        found["commit"] = self.commit()
        found["admitted"] = self.admitted()
        return found

    def waited(self):
        """{voter: (instant of its last grant, instant at which it said that it had waited)} for the lost hosts."""
        said = {}
        for e in self.events("lease-waited-out"):
            if facts.host_of(e) in self.lost and e["at"] in self.alive:
                span = e["waited"]["secs"] * 1e9 + e["waited"]["nanos"]
                said.setdefault(e["at"], (e["t_ns"] - span, e["t_ns"]))
        return said

    def beyond(self, granted, timing):
        """The grant − (the later of the counted voters' last grant + L_v) − one-way delay − two commits of this round."""
        said, commit = self.waited(), self.commit()
        if granted is None or len(said) < 2 or commit is None:
            return None
        bound = sorted(at + expected.voter_wait(timing) * MS for at, _ in said.values())[1]
        return (granted["t_ns"] - bound) / MS - timing["one_way"] - 2 * commit

    def commit(self):
        """How long a commit took: the leader's own word that it has waited, from proposal to applied."""
        leader = next((e["leader"] for e in reversed(self.run.events) if e["kind"] == "leader" and e.get("leader")
                       and e["t_ns"] <= self.killed), None)  # fmt: skip
        said = self.waited().get(leader)
        if said is None:
            return None
        applied = [e["t_ns"] for e in self.events("expired-counted") if e["at"] == leader and e["t_ns"] >= said[1]]
        return (applied[0] - said[1]) / MS if applied else None

    def admitted(self):
        """From the start of a returning host's agent to its admission."""
        spans = []
        for host in self.lost:
            began = [e["t_ns"] for e in self.events("agent-started") if e["at"] == host]
            # Not as the host tells it: it reads the log from its beginning, with all its earlier admissions.
            told = [e for e in self.events("host-admitted") if e["at"] in self.alive]
            admitted = [e["t_ns"] for e in told if facts.host_of(e) == host]
            if began and admitted:
                spans.append((min(admitted) - began[0]) / MS)
        return max(spans, default=None)


class Bench:
    """One lab and its rounds."""

    def __init__(self, options):
        self.options = options
        net.DELAY_MS = options.rtt / 2
        os.makedirs(options.folder, exist_ok=True)
        self.journal = records.Writer(f"{options.folder}/run.jsonl", "bench")
        lab = spec.Options(declare=options.declare, failback="manual", round_trip_max=f"{options.rtt:.0f}ms")
        self.cluster = Cluster(options.prefix, options.folder, lab, record=self.note)
        self.kills = []

    def note(self, **record):
        """Keeps what was done."""
        self.journal.write([{"t_ns": time.monotonic_ns(), **record}])

    def run(self):
        """All rounds; returns the figures of each."""
        with self.cluster as c:
            c.wait_ready()
            self.timing()
            for number in range(self.options.rounds):
                self.round(number)
            c.collect()
        with open(f"{self.options.folder}/client.jsonl", "w", encoding="utf-8") as f:
            f.write(json.dumps({"kind": "begin", "clocks": records.clocks()}) + "\n")
        run = facts.Run(self.options.folder)
        rounds = []
        for killed, site, end, load in self.kills:
            stalled = [e for e in run.chassis if e["kind"] == "stalled" and killed - 10**9 <= e["t_ns"] <= end]
            one = Round(run, self.cluster, killed, site, end)
            rounds.append({"figures": one.figures(run.timing), "load": load, "stalled": bool(stalled)})
        return rounds

    def timing(self):
        """The time spans in force, as the product prints them."""
        shown = json.loads(self.cluster.cli(self.cluster.at(spec.WITNESS)[0], "config", "timing", "-o", "json"))
        spans = {k: _milliseconds(v) for k, v in shown.get("timing", shown).items()}
        with open(f"{self.options.folder}/timing.json", "w", encoding="utf-8") as f:
            json.dump({**{k: v for k, v in spans.items() if v is not None}, "one_way": net.DELAY_MS}, f)

    def round(self, number):
        """One kill and the way back to a protected group."""
        c = self.cluster
        site = c.group()["site"]
        other = "osaka" if site == "tokyo" else "tokyo"
        if self.kills:
            # A host that comes back reads of the loss only then, and counts from there if it leads.
            since = self.kills[-1][2 if self.options.leader == "inside" else 0]
            due = since + BRAKE_S * 10**9
            c.wait_for(lambda: time.monotonic_ns() > due, "the last loss doesn't count for the brake any more", BRAKE_S + 10)
            # A host that was lost twice is flapping, and nothing is moved to it.
            for host in c.at(other):
                c.cli(c.leader()[0], "host", "readmit", host, "--reason", "the next round begins", changes=True)
        if self.options.leader == "inside":
            self.lead_from(c.at(site)[0])
        else:
            c.wait_for(lambda: c.leader()[1] == spec.WITNESS, "the leader at the witness")
        load = os.getloadavg()[0]
        killed = c.power_off(*c.at(site))
        c.wait_for(lambda: self.serves(other), f"the guest runs at {other}", 90)
        c.power_on(*c.at(site))
        c.wait_for(c.is_in_sync, "in sync again", 120)
        self.kills.append((killed, site, time.monotonic_ns(), load))
        print(f"  round {number + 1}: {site} killed, {other} took over, in sync again; load {load:.1f}", flush=True)

    def serves(self, site):
        """Whether the group runs there."""
        shown = self.cluster.group()
        return shown.get("site") == site and shown.get("state") == "running"

    def lead_from(self, host):
        """Makes a host the leader; the product hands over to the witness again two seconds later."""
        c = self.cluster

        def leads():
            c.cli(c.leader()[0], "quorum", "transfer", host, changes=True)
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                if c.leader()[0] == host:
                    return True
            return False

        c.wait_for(leads, f"{host} leads")


def _milliseconds(value):
    if isinstance(value, dict) and {"secs", "nanos"} <= set(value):
        return value["secs"] * 1000 + value["nanos"] / 1e6
    return value if isinstance(value, (int, float)) else None


def quantile(values, share):
    """The value that `share` of all don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))]


def table(rounds):
    """One line a figure."""
    lines = [f"{'figure (ms)':<20}{'n':>4}{'min':>10}{'p50':>10}{'p95':>10}{'max':>10}{'stdev':>10}"]
    good = [r["figures"] for r in rounds if not r["stalled"]]
    for name in good[0] if good else []:
        values = [f[name] for f in good if f[name] is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row = (min(values), quantile(values, 50), quantile(values, 95), max(values), spread)
            lines.append(f"{name:<20}{len(values):>4}" + "".join(f"{v:>10.1f}" for v in row))
    thrown = len(rounds) - len(good)
    loads = [r["load"] for r in rounds]
    lines.append(f"load at the kills {min(loads):.1f}–{max(loads):.1f}; {thrown} rounds thrown away because the machine stalled")
    return "\n".join(lines)


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rtt", type=float, default=40.0, help="milliseconds between sites")
    parser.add_argument("--leader", choices=("outside", "inside"), default="outside")
    parser.add_argument("--declare", choices=("eager", "lazy"), default="eager")
    parser.add_argument("--prefix", default="bench")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/bench")
    options = parser.parse_args()
    print(f"round trip {options.rtt:.0f} ms, leader {options.leader} the lost site, declare = {options.declare}", flush=True)
    rounds = Bench(options).run()
    print(table(rounds))
    with open(f"{options.folder}/figures.json", "w", encoding="utf-8") as f:
        json.dump({"rtt_ms": options.rtt, "leader": options.leader, "declare": options.declare, "rounds": rounds}, f, indent=1)


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as timeout:
        sys.exit(f"a command hung: {timeout}")

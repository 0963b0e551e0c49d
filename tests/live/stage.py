"""The stage of a case: a lab cluster with its client, and what was seen of it since the case began.

Everything here is observation or waiting; what a case does to the cluster is in the case. All times are CLOCK_MONOTONIC
nanoseconds of the machine that the lab runs on.
"""

import contextlib
import time

from demo import facts
from lab import oracle, procs, records, spec
from lab.cluster import CliError, Cluster

HOME, AWAY, WITNESS = "tokyo", "osaka", spec.WITNESS
MS, S = 1_000_000, 1_000_000_000
#: A cluster that can't become healthy again within this is stuck.
HEALTHY_LIMIT_S = 180.0
#: A second site lost within this sets the brake (protocol §5).
BRAKE_S = 62
#: Longer than any detection, and than a leader takes to act on what it sees.
HEALTHY_FOR_S = 2.0
#: A new instance stands still once while QEMU connects to its standby (about 0.5 s at 40 ms round trips) and once in the
#: resync's pause (0.3 s). Judged after less than this, these alone would leave too few stamps to tell anything.
SERVED_S = 6.0
#: A transfer of the leadership that didn't come about by then was given up.
TRANSFER_S = 6.0
#: The client asks this often: its requests fit the guest's log for an hour.
CLIENT_PERIOD_MS = 100


class Broken(AssertionError):
    """The case didn't come out as it must."""


class Stage:
    """One cluster for one or more cases of equal options."""

    def __init__(self, prefix, folder, options, setup=None):
        self.cluster = Cluster(prefix, folder, options)
        if setup:
            setup(self.cluster)
        self.client_process, self.figures, self.timing = None, {}, {}
        self.since, self.lost_ns = time.monotonic_ns(), float("-inf")
        clocks = records.clocks()
        self.offset_ns = clocks["boottime_ns"] - clocks["monotonic_ns"]
        self.tails, self.seen = {}, {"stamps": [], "client": [], "events": [], "chassis": []}

    # ---- up and down

    def up(self):
        """The cluster as every case finds it: serving at home, mirrored, asked without pause."""
        self.cluster.up()
        self.cluster.wait_ready()
        self.client_process = self.cluster.client(period_ms=CLIENT_PERIOD_MS)
        self.timing = self.cluster.timing()
        self.healthy()

    def down(self):
        """Ends it all; the files stay."""
        if self.client_process:
            procs.end(self.client_process)
        self.cluster.collect()
        self.cluster.down()

    def absolve(self):
        """Lets a new leader take over: losses of earlier cases count as flapping, and only a leader remembers them."""
        away, asked = self.cluster.at(AWAY)[0], 0

        def leads():
            """A transfer is given up after an election timeout: on a machine that stalls it is asked for again."""
            nonlocal asked
            leader = self.cluster.leader()[0]
            if leader and leader != away and time.monotonic() - asked > TRANSFER_S:
                asked = time.monotonic()
                with contextlib.suppress(CliError):
                    self.cluster.cli(leader, "quorum", "transfer", away, changes=True)
            return leader == away

        self.wait(leads, f"{away} leads for a moment", 60)
        self.healthy()

    def calm(self):
        """Waits until what was lost in earlier cases, anywhere, doesn't count for the brake any more."""
        is_calm = lambda: self.now() - self.lost_ns > BRAKE_S * S  # noqa: E731
        self.wait(is_calm, "earlier losses don't count for the brake any more", BRAKE_S + 10)

    def begin(self):
        """A case begins: what was seen before doesn't belong to it."""
        self.look()
        elsewhere = [e["t_ns"] for e in self.events("host-lost") if facts.host_of(e) not in self.cluster.at(HOME)]
        # A second site's loss this soon after would set the brake, which is another story.
        soon = lambda: any(self.now() - t < BRAKE_S * S for t in elsewhere)  # noqa: E731
        self.wait(lambda: not soon(), "earlier losses don't count for the brake any more", BRAKE_S + 10)
        self.lost_ns = max([e["t_ns"] for e in self.events("host-lost", 0)] + [self.lost_ns])
        if self.declared():
            self.absolve()
        if any(line["code"] == "brake" for line in (self.cluster.status() or {}).get("attention", [])):
            self.cluster.cli(self.cluster.leader()[0], "brake", "release", "--reason", "the next case begins", changes=True)
        self.since, self.figures = time.monotonic_ns(), {}
        for kind in self.seen:
            self.seen[kind] = []
        self.wait(lambda: self.stamps(), "a guest stamps", 20)

    def figure(self, name, value):
        """Keeps a figure of the case for its report."""
        self.figures[name] = round(value, 1)

    # ---- what was seen

    def look(self):
        """Reads on in every file that is being written."""
        c = self.cluster
        paths = {("stamps", ""): f"{c.folder}/stamps.jsonl", ("client", ""): f"{c.folder}/client.jsonl"}
        for host, box in c.chassis.items():
            paths |= {("events", host): c.journal(host), ("chassis", host): box.log}
        for (kind, host), path in paths.items():
            tail = self.tails.setdefault((kind, host), records.Tail(path))
            for record in tail.more():
                if kind in ("events", "chassis"):
                    record = facts.flat(record)
                    record |= {"at": host, "t_ns": record.get("t_boot_ns", 0) - self.offset_ns}
                self.seen[kind].append(record)

    def events(self, kind, since=None, **wanted):
        """Events of a kind in any journal from a moment on (the case's beginning), each log entry once."""
        self.look()
        found = {}
        for e in self.seen["events"]:
            fits = e["kind"] == kind and e["t_ns"] >= (self.since if since is None else since)
            if fits and all(e.get(k) == v for k, v in wanted.items()):
                found.setdefault(e.get("index", (e["at"], e["t_ns"])), e)
        return sorted(found.values(), key=lambda e: e["t_ns"])

    def about(self, kind, host, since=None):
        """Events of a kind that are about a host."""
        return [e for e in self.events(kind, since) if facts.host_of(e) == host]

    def hardware(self, kind, host, since=None):
        """What a host's chassis logged."""
        self.look()
        after = self.since if since is None else since
        return [e for e in self.seen["chassis"] if e["kind"] == kind and e["at"] == host and e["t_ns"] >= after]

    def stamps(self, since=None):
        """Stamps of guests from a moment on (the case's beginning)."""
        self.look()
        after = self.since if since is None else since
        return [s for s in oracle.stamps(self.seen["stamps"]) if s["t_ns"] >= after]

    def answers(self, since=None):
        """Answers that the client got from a moment on, with the site that gave them."""
        self.look()
        after = self.since if since is None else since
        found = [r for r in self.seen["client"] if r["kind"] == "request" and "n" in r and r["done_ns"] >= after]
        return [{**r, "site": self.cluster.hosts.get(r["host"])} for r in found]

    def boots(self, site=None, since=None):
        """Guest boots seen from a moment on, at a site or anywhere."""
        hosts = self.cluster.at(site) if site else list(self.cluster.hosts)
        return {s["guest_boot"] for s in self.stamps(since) if s["host"] in hosts}

    def declared(self, since=None):
        """Hosts that were declared lost."""
        return sorted({facts.host_of(e) for e in self.events("host-lost", since)})

    def evidence(self, host, since=None):
        """Kinds of evidence that the ledger accepted about a host."""
        return sorted({facts.evidence_of(e)["kind"] for e in self.about("evidence-accepted", host, since)})

    def outage_ms(self, since):
        """From a fault to the first answer after it."""
        return (min(a["done_ns"] for a in self.answers(since) if a["t_ns"] >= since) - since) / MS

    def is_failback(self, event):
        """Whether a plan-opened event is about the way home."""
        return str(event.get("of_kind")).lower() == "failback"

    # ---- waiting

    def now(self):
        """This moment."""
        return time.monotonic_ns()

    def wait(self, condition, what, limit=90.0):
        """Waits for a true value; the case is broken when it doesn't come."""
        try:
            return self.cluster.wait_for(condition, what, limit)
        except AssertionError as e:
            raise Broken(str(e)) from e

    def hold(self, condition, span_s, what):
        """Something must stay so for a while."""
        until = time.monotonic() + span_s
        while time.monotonic() < until:
            self.need(condition(), what)
            time.sleep(0.1)

    def last(self, span_s):
        """Lets a fault last: the passing of time is the fault."""
        self.hold(lambda: True, span_s, "")

    def need(self, held, what):
        """A fact that must be so now."""
        if not held:
            raise Broken(f"{what}\n{self.cluster.dump()}")

    def served_at(self, site, since, limit=90.0, times=5):
        """Waits until the client was answered from a site several times."""
        enough = lambda: sum(a["site"] == site for a in self.answers(since)) >= times  # noqa: E731
        return self.wait(enough, f"the client is served at {site}", limit)

    def healthy(self, limit=HEALTHY_LIMIT_S, home=HOME):
        """Waits until everything is as it should be, for a while: all admitted, served at home, mirrored, no plan open.

        A single look proves nothing: what was just done may not have been noticed by anybody yet.
        """
        since = [None]

        def held():
            if not self._is_healthy(home):
                since[0] = None
                return False
            since[0] = since[0] or time.monotonic()
            return time.monotonic() - since[0] >= HEALTHY_FOR_S

        self.wait(held, f"healthy again, served at {home}", limit)

    def _is_healthy(self, home):
        shown = self.cluster.status(self.cluster.at(WITNESS)[0]) or {}
        hosts = [h["state"] for h in shown.get("hosts", [])]
        group = next((g for g in shown.get("groups", []) if g["name"] == spec.GROUP), {})
        leads = (shown.get("quorum") or {}).get("leader") in self.cluster.at(WITNESS)
        runs = group.get("site") == home and self.cluster.is_protected(group)
        if not (leads and runs and hosts and set(hosts) == {"admitted"} and not shown.get("plans")):
            return False
        recent = self.answers(self.now() - 2 * S)
        return bool(recent) and recent[-1]["site"] == home and self._served_s(recent[-1]["epoch"]) >= SERVED_S

    def _served_s(self, epoch):
        """How long, in this case, the client has been answered under an epoch."""
        times = [a["done_ns"] for a in self.answers() if a["epoch"] == epoch]
        return (max(times) - min(times)) / S

    def group(self, host=None):
        """The group as a host shows it; empty when that host doesn't answer."""
        shown = self.cluster.status(host) or {}
        return next((g for g in shown.get("groups", []) if g["name"] == spec.GROUP), {})

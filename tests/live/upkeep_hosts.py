"""Upkeep of hosts and places: a group pinned through work on the network, hosts that flap, are removed and come again, and
forecasts beside what then comes. Run by `live.upkeep`.
"""

import copy
import json
import subprocess

from lab import spec
from live import releases, sites
from live.case import case
from live.stage import AWAY, BRAKE_S, HOME, MS, S, WITNESS
from live.voters import attention, refused, said

#: Nothing is to happen for this long where nothing may happen: longer than a lease.
CALM_S = 12.0
WHY = ["--reason", "live test"]


# ---- pins


def tied(s, host):
    """(processes under the lease, processes out of its reach) of the group on a host, as the kernel says."""
    return tuple(releases.cgroup(s, host, which, spec.GROUP) for which in ("protected", "pinned"))


def pin(s, host):
    """The pin as a host shows it; empty without one."""
    return s.group(host).get("pin") or {}


def pinned(s, host, guest):
    """The group is pinned; waits until that is in force, and looks at what the kernel made of it."""
    s.cluster.cli(s.cluster.leader()[0], "freeze", "--pin", spec.GROUP, *WHY, changes=True)
    s.wait(lambda: pin(s, host).get("acknowledged") and pin(s, host).get("in_force"), "the pin is in force", 30)
    s.need(tied(s, host) == (set(), guest), f"pinned, and the kernel shows {tied(s, host)}, not {guest} out of reach")


@case("pinned-through-network-work")
def pinned_through_work(s):
    """A pinned guest goes on through a cut far longer than its lease, nobody else gets it; untied, its lease counts again."""
    host, before = s.cluster.at(HOME)[0], s.boots()
    away = s.cluster.at(AWAY)[0]
    guest, outside = tied(s, host)
    s.need(guest and not outside, f"before it is pinned the kernel shows {guest} and {outside}")
    pinned(s, host, guest)
    # As operators are told: the mirror is let go before the work, for it can't be given up during it.
    s.cluster.net.cut(HOME, AWAY, nets=("wan",))
    s.wait(lambda: not s.cluster.is_in_sync(), "the mirror is detached", 40)
    s.served_at(HOME, s.now(), limit=30)
    at = s.cluster.net.isolate(HOME, nets=("wan",))
    s.wait(lambda: s.declared(at) == [host] and s.evidence(host, at), f"{host} is declared lost and its lease over", 60)
    status, told = said(s, away, "failover", spec.GROUP, "--to", away, "--accept-loss", *WHY)
    s.need(status != 0, f"a failover by hand took it: {told}")
    s.hold(lambda: s.boots() <= before, CALM_S, "the guest was started again")
    s.served_at(HOME, s.now(), limit=30)
    s.need(tied(s, host) == (set(), guest), f"during the work the kernel shows {tied(s, host)}")
    gone = [g["group"] for g in (releases.keeper(s, host)["attestation"] or {}).get("gone", [])]
    s.need(spec.GROUP not in gone, f"the keeper attests that {gone} are gone, and it runs")
    s.need(not s.hardware("reset", host), f"{host} was reset")
    s.cluster.net.heal()
    s.wait(lambda: admitted(s, host), f"{host} is admitted again", 60)
    s.need(tied(s, host) == (set(), guest), f"after the work the kernel shows {tied(s, host)}")
    s.cluster.cli(host, "thaw", "--pin", spec.GROUP, *WHY, changes=True, limit=40)
    s.need(tied(s, host) == (guest, set()), f"untied, and the kernel shows {tied(s, host)}")
    s.wait(lambda: not any(pin(s, h) for h in s.cluster.hosts), "nobody shows a pin", 20)
    s.healthy()
    s.need(s.boots() == before, "the guest was touched")
    sites.cut_off(s, ("wan", "seg"))
    s.cluster.net.heal()
    s.healthy()


# ---- hosts


def admitted(s, host):
    """The host's epoch as the leader sees it, if it is admitted; a number of this era."""
    shown = s.cluster.status(s.cluster.at(WITNESS)[0]) or {}
    line = next((h for h in shown.get("hosts", []) if h["name"] == host), {})
    return int(line["host_epoch"].rpartition(":")[2]) if line.get("state") == "admitted" else None


@case("flapping-host-readmitted", last=True)
def flapping_readmitted(s):
    """A host that is lost three times is chosen for nothing until a person lets it back; then it takes over."""
    host, leader, before = s.cluster.at(AWAY)[0], s.cluster.at(WITNESS)[0], s.boots()
    # The other site lost a moment ago, in the case before, would set the brake.
    s.calm()
    for _ in range(3):
        at = s.cluster.power_off(host)
        s.wait(lambda: s.about("host-lost", host, at), f"{host} is declared lost", 60)
        refused(s, leader, "not-readmitted", f"{host} isn't heard", "host", "readmit", host, *WHY)
        s.cluster.power_on(host)
        s.wait(lambda: admitted(s, host), f"{host} is admitted again", 60)
    s.wait(lambda: "host-held" in attention(s, leader), "it is said that the host is held", 20)
    s.need(attention(s, leader)["host-held"] == f"antipode host readmit {host}", f"no way out: {attention(s, leader)}")
    s.need(s.group(leader)["would_go_to"] is None, f"it would go to {s.group(leader)['would_go_to']}, which is held")
    possible = s.group(leader)["automatic_failover"]
    s.need(not possible["possible"] and "flaps" in possible["because"], f"automatic failover: {possible}")
    s.cluster.cli(leader, "host", "readmit", host, *WHY, changes=True)
    s.wait(lambda: "host-held" not in attention(s, leader), "it is held no more", 20)
    s.healthy()
    s.need(s.group(leader)["would_go_to"] == host and s.boots() == before, f"after it: {s.group(leader)}")
    calm = s.now() - max(e["t_ns"] for e in s.about("host-lost", host))
    s.last(max(0.0, BRAKE_S - calm / S))
    s.served_at(AWAY, sites.kill_home(s))


SECOND = "os-2"
#: Osaka has a second host that doesn't vote.
FOUR = {"hosts": {"tk-1": HOME, "os-1": AWAY, SECOND: AWAY, "ng-1": WITNESS}, "voters": ["tk-1", "os-1", "ng-1"]}


def without(s, host):
    """The cluster's spec without a host."""
    options = copy.copy(s.cluster.options)
    options.hosts = {name: site for name, site in options.hosts.items() if name != host}
    return options


@case("host-removed-and-added", FOUR, last=True)
def host_removed(s):
    """A host that is lost is removed: when it wakes it renews and runs nothing. Added again it is a new one, and serves."""
    leader, old, before = s.cluster.at(WITNESS)[0], admitted(s, SECOND), s.boots()
    box = s.cluster.chassis[SECOND]
    refused(s, leader, "host-still-admitted", "stop its agent", "host", "remove", SECOND, *WHY)
    at = s.now()
    box.order("signal agent STOP")
    s.wait(lambda: s.evidence(SECOND, at), f"{SECOND} is declared lost and proven harmless", 90)
    s.cluster.cli(leader, "host", "remove", SECOND, *WHY, changes=True)
    s.cluster.apply(without(s, SECOND))
    # It wakes in the boot in which it was admitted, and knows nothing of all this.
    woken = s.now()
    box.order("signal agent CONT")
    s.wait(lambda: s.cluster.status(SECOND), "its agent answers", 60)
    idle = lambda: releases.keeper(s, SECOND)["armed"] is None and not s.events("lease-held", woken, at=SECOND)  # noqa: E731
    s.hold(lambda: idle() and admitted(s, SECOND) is None, CALM_S, f"{SECOND} was removed, and renews")
    refused(s, leader, "request-refused", "antipode status", "host", "readmit", SECOND, *WHY)
    s.need(s.boots() == before, "the guest was touched")
    s.cluster.apply()
    s.wait(lambda: admitted(s, SECOND), f"{SECOND} is admitted", 60)
    s.need(admitted(s, SECOND) > old, f"{SECOND} was {old} and is {admitted(s, SECOND)}: a removed name goes on where it was")
    s.healthy()
    # The standby dies: the new host becomes it, then takes over.
    s.cluster.power_off("os-1")
    in_sync = lambda: SECOND in (s.group(leader).get("data") or {}).get("in_sync", [])  # noqa: E731
    s.wait(in_sync, f"{SECOND} has a copy in sync", 120)
    s.need(s.group(leader)["would_go_to"] == SECOND and s.boots() == before, f"after it: {s.group(leader)}")
    s.cluster.power_on("os-1")
    s.wait(lambda: admitted(s, "os-1"), "os-1 is admitted", 60)


# ---- forecasts


def forecast(s, host, *words):
    """(exit status, what is said of the group) of a disaster that is only imagined."""
    argv = [s.cluster.binary, "what-if", *words, "--socket", s.cluster.socket(host), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL)
    s.need(done.returncode in (0, 3, 4), f"what-if {' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.returncode, next(g for g in json.loads(done.stdout)["groups"] if g["group"] == spec.GROUP)


def records(s, host):
    """How many acts of people the ledger counts, and what is in force."""
    shown = s.cluster.status(host)
    audit = json.loads(s.cluster.cli(host, "audit", "show", "-o", "json"))
    kept = ("spec_revision", "freeze", "plans", "version")
    return [len(audit["records"]), [shown[key] for key in kept], [h["host_epoch"] for h in shown["hosts"]], s.group(host)["epoch"]]


@case("forecast-comes-true", last=True)
def forecast_comes_true(s):
    """What is forecast of a site's loss comes true, frozen or not; of other losses nothing comes; asking changes nothing."""
    home, away, leader = s.cluster.at(HOME)[0], s.cluster.at(AWAY)[0], s.cluster.at(WITNESS)[0]
    before, known, seen = s.boots(), records(s, leader), s.now()
    status, site = forecast(s, leader, "site-loss", HOME)
    s.need((status, site["outcome"], site["from"], site["to"]) == (0, "moves", home, away), f"site: {status} {site}")
    status, host = forecast(s, away, "host-loss", home)
    s.need((status, host["outcome"], host["to"]) == (0, "moves", away), f"host: {status} {host}")
    status, link = forecast(s, leader, "link-loss", HOME, AWAY)
    s.need((status, link["outcome"], link["to"]) == (0, "stays", home), f"link: {status} {link}")
    status, witness = forecast(s, home, "site-loss", WITNESS)
    s.need((status, witness["outcome"], witness["protected"]) == (0, "stays", True), f"witness: {status} {witness}")
    s.need(records(s, leader) == known and s.boots() == before, f"asking changed {known} to {records(s, leader)}")
    s.need(not s.declared(seen), f"declared were {s.declared(seen)}: it was only imagined")
    comes_true(s, site, sites.kill_home(s))
    s.cluster.power_on(home)
    s.healthy()
    held_as_forecast(s, leader)


def comes_true(s, told, at):
    """The site is lost, and the group comes out of it as it was told."""
    s.served_at(AWAY, at)
    line, lost = s.group(), told["from"]
    s.need(line["host"] == told["to"], f"forecast: {told['to']}, and it went to {line['host']}")
    by = [f"{lost}: {kind}" for kind in s.evidence(lost, at)]
    s.need(told["proven_by"] == by, f"forecast: proven by {told['proven_by']}, and it was {by}")
    s.need(told["protected"] == s.cluster.is_in_sync(), f"forecast: protected {told['protected']}, and it is {line['data']}")
    s.need(told["expected_rpo_ms"] == 0, f"forecast: {told['expected_rpo_ms']} ms of a mirrored guest's data lost")
    for name, key, real in (("declared", "declared_ms", "host-lost"), ("proven", "proven_ms", "evidence-accepted")):
        s.figure(f"{name}_ms_forecast", told[key])
        s.figure(f"{name}_ms", (s.about(real, lost, at)[0]["t_ns"] - at) / MS)
    s.figure("outage_ms_forecast", told["expected_rto_ms"])
    s.figure("outage_ms", s.outage_ms(at))


def held_as_forecast(s, leader):
    """Frozen, the same loss is told to be held by a gate, and is, by that gate; thawed it moves."""
    s.cluster.cli(leader, "freeze", "cluster", "--for", "30m", *WHY, changes=True)
    status, told = forecast(s, leader, "site-loss", HOME)
    s.need((status, told["outcome"], told["to"]) == (3, "held", None), f"frozen: {status} {told}")
    at = sites.kill_home(s)
    s.wait(lambda: s.group(leader)["gates"]["declare"]["state"] == "waiting", "the site's loss is noticed", 30)
    s.hold(lambda: not s.boots(AWAY, at) and not s.declared(at), CALM_S, "something moved, and it was to be held")
    because = f"gate declare: {s.group(leader)['gates']['declare']['because']}"
    s.need(told["because"] == because, f"forecast: {told['because']!r}, and it is {because!r}")
    s.cluster.cli(leader, "thaw", str(s.cluster.status(leader)["freeze"][0]["index"]), *WHY, changes=True)
    s.served_at(AWAY, at)

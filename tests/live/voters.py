"""The voters, live: they come, go, forget and die while a guest runs; and a majority that is gone for ever.

    python3 -m live.voters [--quick | --only NAME,NAME] [--list] [--folder F] [--prefix P]

Three voters found the cluster, a fourth host stands by at the witness' site. Every case ends with the judge: never two, one
host an epoch, no acknowledged write lost, enough stamps.
"""

import json
import os
import shutil
import subprocess
import sys

from lab import spec
from live import run
from live.case import CASES, case
from live.stage import AWAY, HOME, S

SPARE = "ng-2"
FOUNDERS = {"tk-1": "tokyo", "os-1": "osaka", "ng-1": "nagoya"}
OPTIONS = {"hosts": {**FOUNDERS, SPARE: "nagoya"}, "voters": list(FOUNDERS)}
#: Several leases long: whoever lives on grants of too few voters is ended within.
CALM_S = 12.0
STORE = "voter.redb"
OTHERS_ON = set(CASES)


# ---- asking and seeing


def said(s, host, *words, inside=False, limit=60.0):
    """One command given on a host; (exit status, its JSON). `inside`: it works on the host's files, in its network."""
    box = s.cluster.chassis[host]
    where = ["--config", box.folders["config"]] if inside else ["--socket", s.cluster.socket(host)]
    argv = [box.binary, *words, *where, "-o", "json"]
    if inside:
        argv = ["ip", "netns", "exec", box.netns, *argv]
    s.cluster.record(kind="command", argv=list(words), host=host, changes=True)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        s.need(False, f"{' '.join(words)} ended with {done.returncode} and no document: {done.stdout}{done.stderr}")


def refused(s, host, code, next_part, *words, inside=False):
    """A command that must be refused, with this code and a next command."""
    status, told = said(s, host, *words, inside=inside)
    error = told.get("error", {})
    fits = status == 3 and error.get("code") == code and next_part in error["text"] + error["next"]
    s.need(fits, f"{' '.join(words)}: not refused as {code!r} with {next_part!r}, but {status}: {told}")


def asked(s, host, *words):
    """A change of the voters: done at once, or on its way. What comes of it is waited for by the case."""
    status, told = said(s, host, *words, "--reason", "live test")
    s.need(status == 0 or told.get("error", {}).get("code") == "undecided", f"{' '.join(words)}: {status}: {told}")


def voters(s, host):
    """{host: voter id} as one agent shows it; empty when it doesn't answer."""
    members = ((s.cluster.status(host) or {}).get("quorum") or {}).get("members", [])
    return {m["host"]: m["id"] for m in members}


def agreed(s, hosts, at=None, limit=90.0):
    """Waits until these vote, as every host that is asked shows it; their ids."""
    at = at or list(OPTIONS["hosts"])
    s.wait(lambda: all(set(voters(s, h)) == set(hosts) for h in at), f"{sorted(hosts)} vote, say {at}", limit)
    return voters(s, at[0])


def data(s, host, name=""):
    """A path in a host's data folder."""
    return f"{s.cluster.chassis[host].folders['data']}/{name}"


def aside(s, host, name):
    """Waits for a store that was put aside under this name."""
    s.wait(lambda: os.path.exists(data(s, host, f"{STORE}.{name}")), f"{host} has put its store aside as {name}", 60)


def wiped(s, host):
    """The host's disk is gone, and with it all that its agent knew; it has no power."""
    shutil.rmtree(data(s, host))
    os.makedirs(data(s, host))


def untouched(s, before, span_s=CALM_S):
    """The guest lives on, in the same boot, for several leases."""
    s.hold(lambda: s.boots() <= before, span_s, "the guest was started again")
    s.wait(lambda: {x["guest_boot"] for x in s.stamps(s.now() - S)} == before, "the guest lives", 20)


def handed_to(s, host):
    """The leader gives way to a host, if it doesn't lead by itself."""
    leader = s.cluster.leader()[0]
    if leader != host:
        s.cluster.cli(leader, "quorum", "transfer", host, changes=True)
    s.wait(lambda: s.cluster.leader()[0] == host, f"{host} leads", 30)


# ---- while a majority lives


@case("voter-added-and-removed", OPTIONS, quick=True)
def added_and_removed(s):
    """A host becomes a voter, and is one: with it, and only with it, a majority goes on. Then its vote goes again."""
    before = s.boots()
    asked(s, "os-1", "quorum", "add", SPARE)
    first = agreed(s, [*FOUNDERS, SPARE])[SPARE]
    s.need(first > 1_000, f"{SPARE} votes as {first}: a later voter is named by its place in the log")
    refused(s, "tk-1", "request-refused", "antipode quorum status", "quorum", "add", "zz-9", "--reason", "no such host")
    # Of four voters three are left: whatever is decided and granted now, it decides and grants.
    s.cluster.power_off("ng-1")
    s.wait(lambda: (s.cluster.leader()[0] or "ng-1") != "ng-1", "another leads", 60)
    untouched(s, before)
    s.cluster.power_on("ng-1")
    s.healthy()
    asked(s, "tk-1", "quorum", "remove", SPARE)
    agreed(s, FOUNDERS)
    aside(s, SPARE, f"ended-{first}")
    refused(s, "tk-1", "request-refused", "antipode quorum status", "quorum", "remove", SPARE, "--reason", "again")
    refused(s, "tk-1", "request-refused", "antipode quorum add HOST --replace", "quorum", "remove", "os-1", "--reason", "too few")
    untouched(s, before, 2.0)
    s.healthy()


@case("leadership-handed-over", OPTIONS, quick=True)
def handed_over(s):
    """The leadership goes around; nobody notices. Who doesn't vote can't lead, who doesn't lead can't hand it over."""
    before = s.boots()
    for host in ("os-1", "tk-1", "ng-1"):
        handed_to(s, host)
    refused(s, "ng-1", "not-a-voter", "antipode quorum status", "quorum", "transfer", SPARE)
    refused(s, "os-1", "request-refused", "antipode quorum status", "quorum", "transfer", "tk-1")
    untouched(s, before)
    s.healthy()


@case("dead-voter-replaced", OPTIONS)
def dead_replaced(s):
    """The witness burns down, leader and all; another takes its vote in one step, and its word counts in a disaster."""
    before = s.boots()
    s.cluster.power_off("ng-1")
    wiped(s, "ng-1")
    s.wait(lambda: (s.cluster.leader()[0] or "ng-1") != "ng-1", "another leads", 60)
    asked(s, "os-1", "quorum", "add", SPARE, "--replace", "ng-1")
    alive = ["tk-1", "os-1", SPARE]
    agreed(s, alive, alive)
    untouched(s, before)
    handed_to(s, SPARE)
    at = s.cluster.power_off("tk-1")
    s.served_at(AWAY, at)
    s.need(s.declared(at) == ["tk-1"], f"declared were {s.declared(at)}")
    s.need("self-fenced" in s.evidence("tk-1", at), f"the evidence was {s.evidence('tk-1', at)}")
    s.figure("outage_ms", s.outage_ms(at))
    # The dead one comes back with an empty disk, founds its old vote anew, and is told that it is over.
    s.cluster.power_on("tk-1", "ng-1")
    aside(s, "ng-1", "ended-3")
    agreed(s, alive)
    asked(s, "os-1", "quorum", "add", "ng-1", "--replace", SPARE)
    agreed(s, FOUNDERS)
    s.healthy()


@case("voter-forgets", OPTIONS)
def forgets(s):
    """A voter loses its store, then has a damaged one: each time it comes back by itself under another id."""
    ids = [agreed(s, FOUNDERS)["os-1"]]
    for spoil in (os.unlink, damage):
        before = s.boots()
        s.cluster.power_off("os-1")
        spoil(data(s, "os-1", STORE))
        s.cluster.power_on("os-1")
        fresh = lambda: voters(s, "ng-1").get("os-1", ids[0]) not in ids and len(voters(s, "ng-1")) == 3  # noqa: E731
        s.wait(fresh, "os-1 votes under a new id", 90)
        ids.append(agreed(s, FOUNDERS)["os-1"])
        untouched(s, before, 2.0)
        s.healthy()
    s.need(len(set(ids)) == 3, f"ids were {ids}")
    aside(s, "os-1", "unknown")
    s.wait(lambda: os.path.exists(data(s, "os-1", f"{STORE}.ended-{ids[1]}")), "the second vote is known to be over", 20)


def damage(path):
    """The disk returns something else than was written: one byte of every page behind the store's head."""
    with open(path, "r+b") as f:
        for at in range(8_192 + 1_000, os.path.getsize(path), 4_096):
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x40]))


# ---- a majority is gone for ever


def recovered(s, host, *words, others):
    """Refusals first; then a new era begins on a host whose agent is stopped. `others`: who has to be added again. The
    freeze under which it begins."""
    again = [*words, "--reason", "live test"]
    sure = [*again, "--confirm", spec.CLUSTER]
    refused(s, host, "agent-running", "systemctl stop antipode-agent", *sure, inside=True)
    stopped(s, host)
    status, told = said(s, host, *again, inside=True)
    s.need((status, told["error"]["code"]) == (2, "not-confirmed"), f"nobody confirmed, and it said {told}")
    status, dry = said(s, host, *again, "--dry-run", inside=True)
    s.need(status == 0 and dry["dry_run"] and dry["era"] == 2 and dry["groups"] == [spec.GROUP], f"dry run: {status} {dry}")
    status, told = said(s, host, *sure, inside=True)
    s.need(status == 0 and told["era"] == 2 and sorted(told["others"]) == sorted(others), f"{words}: {status} {told}")
    s.cluster.chassis[host].order("start agent")
    s.wait(lambda: s.cluster.leader()[0] == host, f"{host} leads alone", 60)
    s.need(list(voters(s, host)) == [host], f"{voters(s, host)} vote")
    return told["freeze"]


def stopped(s, host):
    """The host's agent is stopped, and stays so."""
    for order in ("stop agent", "signal agent KILL"):
        s.cluster.chassis[host].order(order)
    s.wait(lambda: s.cluster.status(host) is None, f"the agent of {host} has ended", 60)


def thawed(s, host, index):
    """A person has looked: what the new era began frozen moves again."""
    s.need((s.cluster.status(host) or {}).get("freeze"), "the new era didn't begin frozen")
    s.cluster.cli(host, "thaw", str(index), "--reason", "looked", changes=True)


def accepted(s, host, *words):
    """A person accepts the loss for the copy that is to run."""
    s.cluster.cli(host, "failover", spec.GROUP, "--accept-loss", "--reason", "live test", *words, changes=True, limit=40)


@case("majority-lost-recovered", OPTIONS, last=True)
def majority_lost(s):
    """All power is lost and one voter's disk is left: a new era begins from it, the old ones give way, one side serves."""
    at = s.cluster.power_off(*OPTIONS["hosts"])
    wiped(s, "tk-1")
    s.cluster.power_on("os-1")
    s.wait(lambda: "no-majority" in attention(s, "os-1"), "it is said that no majority is there", 60)
    s.need("quorum recover" in attention(s, "os-1")["no-majority"], f"no way out: {attention(s, 'os-1')}")
    # While another voter lives the majority may come back: two eras would be one too many.
    stopped(s, "os-1")
    s.cluster.power_on("ng-1")
    s.wait(lambda: s.cluster.status("ng-1"), "the witness' agent answers", 60)
    sure = ["--reason", "live test", "--confirm", spec.CLUSTER]
    refused(s, "os-1", "voter-reachable", "antipode quorum status", "quorum", "recover", *sure, inside=True)
    s.cluster.power_off("ng-1")
    s.cluster.chassis["os-1"].order("start agent")
    s.wait(lambda: s.cluster.status("os-1"), "its agent answers", 60)
    freeze = recovered(s, "os-1", "quorum", "recover", others=["tk-1", "ng-1"])
    s.hold(lambda: not s.boots(AWAY, at), CALM_S, "the guest was started while tk-1 wasn't proven")
    accepted(s, "os-1", "--to", AWAY)
    s.hold(lambda: not s.boots(AWAY, at), CALM_S, "accepted, and tk-1 still wasn't proven")
    vouch = ["fence", "override", "host", "tk-1", "--now", "--confirm", "tk-1", "--reason", "burned down"]
    s.cluster.cli("os-1", *vouch, changes=True)
    s.served_at(AWAY, at)
    # A voter of the older era wakes with all that it knew, and so does the home site, with an empty disk.
    s.cluster.power_on("ng-1", "tk-1", SPARE)
    aside(s, "ng-1", "ended-3")
    s.need(list(voters(s, "os-1")) == ["os-1"], f"{voters(s, 'os-1')} vote")
    whole_again(s, "os-1", ["ng-1", "tk-1"], freeze)


@case("restored-from-backup", OPTIONS, last=True)
def restored(s):
    """No voter's store is left: a new era begins from a backup, every host answers for itself, one side serves."""
    backup = f"{s.cluster.folder}/cluster.backup"
    status, told = said(s, "os-1", "quorum", "backup", backup)
    s.need(status == 0 and told["era"] == 1 and told["bytes"] == os.path.getsize(backup), f"backup: {status} {told}")
    at = s.cluster.power_off(*OPTIONS["hosts"])
    for host in OPTIONS["hosts"]:
        wiped(s, host)
    s.cluster.power_on("ng-1")
    s.wait(lambda: s.cluster.status("ng-1"), "the witness' agent answers", 60)
    freeze = recovered(s, "ng-1", "quorum", "restore", backup, others=["tk-1", "os-1"])
    s.cluster.power_on("os-1", "tk-1", SPARE)
    states = lambda: {h["name"]: h["state"] for h in (s.cluster.status("ng-1") or {}).get("hosts", [])}  # noqa: E731
    s.wait(lambda: set(states().values()) == {"admitted"}, "every host has answered for itself", 90)
    s.hold(lambda: not s.boots(since=at + S), CALM_S, "the guest was started and nobody had accepted the loss")
    accepted(s, "ng-1", "--to", HOME)
    s.served_at(HOME, at)
    whole_again(s, "ng-1", ["os-1", "tk-1"], freeze)


def attention(s, host):
    """{code: next} of what a host says a person should look at."""
    return {line["code"]: line["next"] for line in (s.cluster.status(host) or {}).get("attention", [])}


def whole_again(s, first, others, freeze):
    """The voters are added again, one by one; the cluster is thawed, and is what it was."""
    for host in others:
        s.wait(lambda: s.cluster.leader()[0], "a leader", 60)
        asked(s, first, "quorum", "add", host)
        s.wait(lambda: host in voters(s, first), f"{host} votes", 120)
    agreed(s, FOUNDERS)
    thawed(s, first, freeze)
    s.healthy()


def main():
    """Only the cases of this file are known here."""
    for name in OTHERS_ON:
        CASES.pop(name, None)
    return run.main()


if __name__ == "__main__":
    sys.exit(main())

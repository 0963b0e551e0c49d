"""Cases about data, played by `live_data.run` on the stage of `live`.

The promise under test is exact, so it is looked at exactly: an answer that the client got before the mirror's detachment
was committed is on the standby's disk, byte for byte; nothing is concluded from how long something took.
"""

import glob
import json
import os
import signal
import subprocess

from lab import spec
from lab.guest import build
from live.case import case
from live.stage import AWAY, HOME, MS, S

#: Answers after a detachment that show that writes go on.
AFTER = 20


def disk_log(s, host):
    """(n, nonce) of each request in a host's disk as it is now."""
    path = f"{s.cluster.folder}/disks/{host}-look.raw"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    subprocess.run(["cp", "--sparse=always", s.cluster.disks[host], path], check=True)
    return {(r["n"], r["nonce"]) for r in map(json.loads, build.read_log(path))}


def detached_at(s, since, limit=60.0):
    """When the owner first knew that `Detached` was committed."""
    return s.wait(lambda: s.events("detached", since), "the mirror's detachment is committed", limit)[0]["t_ns"]


def no_answer_before_detached(s, at, standby):
    """Every answer up to the detachment is on the standby's disk; afterwards the guest goes on answering."""
    until = detached_at(s, at)
    s.figure("detached_ms", (until - at) / MS)
    log = disk_log(s, standby)
    early = [a for a in s.answers() if a["done_ns"] <= until]
    missing = [a["n"] for a in early if (a["n"], a["nonce"]) not in log]
    s.need(not missing, f"answered before the detachment, and not on {standby}'s disk: {missing[:5]}")
    # The fault was there: some span passed in which nothing at all was answered.
    quiet = [a for a in s.answers(at + 500 * MS) if a["done_ns"] <= until]
    s.need(not quiet, f"{len(quiet)} answers between half a second after the fault and the detachment")
    s.served_at(HOME, until, limit=30, times=AFTER)


def resynced(s, since):
    """The other copy was compared, and only what differed was sent."""
    done = s.wait(lambda: s.events("resync-done", since), "a resync is told", 120)[0]
    for key in ("compared_bytes", "differing_bytes", "copied_bytes", "pause_ms"):
        s.figure(key, done[key])
    s.need(done["compared_bytes"] == build.DISK_BYTES, f"not all was compared: {done}")
    s.need(done["copied_bytes"] < build.DISK_BYTES / 4, f"nearly everything was sent: {done}")


@case("standby-dead-under-load")
def standby_dead(s):
    """The standby dies under load: no answer between the fault and the detachment; later it is compared, not copied."""
    standby = s.cluster.at(AWAY)[0]
    at = s.cluster.power_off(standby)
    no_answer_before_detached(s, at, standby)
    back = s.now()
    s.cluster.power_on(standby)
    resynced(s, back)
    s.healthy()


def export_processes(s, host):
    """Host pids of the programs that take in the owner's writes."""
    found = []
    for path in glob.glob(f"{s.cluster.chassis[host].folders['slice']}/**/cgroup.procs", recursive=True):
        with open(path, encoding="ascii") as f:
            pids = [int(pid) for pid in f.read().split()]
        for pid in pids:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read().startswith("qemu-storage"):
                    found.append(pid)
    return found


@case("standby-silent-under-load")
def standby_silent(s):
    """What takes in the writes stands still, its connection open: no answer before the detachment, then all goes on."""
    standby = s.cluster.at(AWAY)[0]
    pids = s.wait(lambda: export_processes(s, standby), "the standby's export is found", 20)
    at = s.now()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        no_answer_before_detached(s, at, standby)
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
    s.healthy()


@case("standby-cut-under-load")
def standby_cut(s):
    """The path to the standby is cut under load: no answer before the detachment, no failover, the pair heals."""
    standby = s.cluster.at(AWAY)[0]
    at = s.now()
    s.cluster.net.cut(HOME, AWAY, nets=("wan",))
    no_answer_before_detached(s, at, standby)
    s.need(not s.declared(at), f"declared were {s.declared(at)}")
    back = s.now()
    s.cluster.net.heal()
    resynced(s, back)
    s.healthy()


def held(s, at, span_s=8.0):
    """Nobody takes the group over, and the figure is told; returns it in ms."""
    witness = s.cluster.leader()[0]
    shown = lambda: (s.cluster.status(witness) or {}).get("attention", [])  # noqa: E731
    told = s.wait(lambda: [a for a in shown() if a["code"] == "data-held"], "it is told that the data holds it", 60)[0]
    s.need("--accept-loss" in told["next"], f"no way out is named: {told}")
    s.hold(lambda: not s.boots(AWAY, at), span_s, "a copy that lacks something was started")
    return s.group(witness)["data"]["expected_loss_ms"]


@case("detached-then-site-killed")
def detached_then_killed(s):
    """The mirror was detached before the site died: the group is held with the true figure, and comes back in place."""
    home, standby = s.cluster.at(HOME)[0], s.cluster.at(AWAY)[0]
    off = s.cluster.power_off(standby)
    since = detached_at(s, off)
    s.served_at(HOME, since, times=AFTER)
    s.cluster.power_on(standby)
    # Before the pair can heal: the standby is admitted, its copy is older than the owner's.
    at = s.cluster.power_off(home)
    last = [a["done_ns"] for a in s.answers() if a["done_ns"] <= at + S][-1]
    figure = held(s, at)
    s.figure("expected_loss_ms", figure if figure is not None else -1)
    lost = (last - since) / MS
    s.need(figure is not None and figure >= lost, f"{figure} ms are told, what was answered spans {lost:.0f} ms")
    s.need(figure <= lost + 15000, f"{figure} ms are told, what was answered spans only {lost:.0f} ms")
    s.cluster.power_on(home)
    s.healthy()


ASYNC = {"mode": "async", "target_rpo": "30s"}


def lost_ids(s, at, host):
    """Answers up to a moment that the host's disk doesn't have, by the time of their answer."""
    log = disk_log(s, host)
    return [a for a in s.answers() if a["done_ns"] <= at + S and a["site"] == HOME and (a["n"], a["nonce"]) not in log]


def follows(s):
    """Whether the asynchronous copy's lag is known and small."""
    lag = (s.group(s.cluster.leader()[0]).get("data") or {}).get("lag_ms")
    return lag is not None and lag < 10_000


@case("async-within-target", ASYNC, last=True)
def async_within(s):
    """An asynchronous group is taken over within its target, and what is lost lies within the reported measure."""
    s.loses = True
    s.wait(lambda: follows(s), "the lag is known", 90)
    s.served_at(HOME, s.now(), times=AFTER)
    home, away = s.cluster.at(HOME)[0], s.cluster.at(AWAY)[0]
    at = s.cluster.power_off(home)
    s.wait(lambda: s.boots(AWAY, at), f"it is started at {AWAY}", 120)
    s.served_at(AWAY, at, limit=120)
    plan = s.wait(lambda: [e for e in s.events("plan-closed", at) if "Done" in (e.get("outcome") or {})], "the plan ends", 60)
    measured = plan[0]["outcome"]["Done"]["measured_rpo"]
    rpo_ms = measured["secs"] * 1000 + measured["nanos"] / 1e6
    s.figure("measured_rpo_ms", rpo_ms)
    lost = lost_ids(s, at, away)
    s.figure("lost", len(lost))
    if lost:
        oldest = (at - lost[0]["done_ns"]) / MS
        s.figure("oldest_lost_ms", oldest)
        s.need(oldest <= rpo_ms, f"lost is what was answered {oldest:.0f} ms before the end; {rpo_ms:.0f} ms are told")


@case("async-beyond-target", {"mode": "async", "target_rpo": "6s"}, last=True)
def async_beyond(s):
    """Beyond its target an asynchronous group is held, with the figure; a person accepts the loss, on record."""
    s.loses = True
    s.wait(lambda: follows(s), "the lag is known", 90)
    home, away = s.cluster.at(HOME)[0], s.cluster.at(AWAY)[0]
    s.cluster.net.cut(HOME, AWAY, nets=("wan",))
    cut = s.now()
    s.served_at(HOME, cut + 4 * S, times=AFTER)
    at = s.cluster.power_off(home)
    figure = held(s, at)
    s.figure("expected_loss_ms", figure if figure is not None else -1)
    s.need(figure is None or figure > 6000, f"{figure} ms are told; it was cut off for longer than the target")
    leader = s.cluster.leader()[0]
    s.cluster.cli(leader, "failover", spec.GROUP, "--accept-loss", "--reason", "the case", changes=True, limit=30)
    s.wait(lambda: s.boots(AWAY, at), f"it is started at {AWAY}", 120)
    s.served_at(AWAY, at, limit=120)
    s.need(s.events("loss-accepted", at), "the acceptance isn't in the log")

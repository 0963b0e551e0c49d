"""What is installed on a lab host and what runs of it: programs exchanged as a package does, keepers that go on as the new
program, agents that are started again. The one place that knows how this is seen from outside.
"""

import json
import os
import shutil
import subprocess
import sys

from lab import cluster, procs
from live.stage import MS


def earlier():
    """The release that a cluster is upgraded from: ANTIPODE_EARLIER, or the product under test."""
    return os.environ.get("ANTIPODE_EARLIER") or cluster.binary()


def later():
    """The release that it is upgraded to: the same source, built to understand one more cluster version."""
    path = f"{cluster.binary()}-next"
    if not os.path.exists(path):
        sys.exit(f"{path} isn't there: run `make upkeep-build`")
    return path


def fit(lab, which):
    """Gives every host of a cluster a program of its own: the `earlier` or the `later` release."""
    for host, box in lab.chassis.items():
        box.binary = f"{lab.folder}/installed/{host}/antipode"
        place({"earlier": earlier, "later": later}[which](), box.binary)


def place(program, path):
    """Puts a program where a host finds it: what runs keeps its old file, whoever is started next gets the new one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = f"{path}.fresh"
    if os.path.exists(fresh):
        os.unlink(fresh)
    try:
        os.link(program, fresh)
    except OSError:
        shutil.copy2(program, fresh)
    os.replace(fresh, path)


def installed(s, host, program):
    """A release is installed on a host; nothing is started anew yet."""
    place(program, s.cluster.chassis[host].binary)
    s.cluster.record(kind="installed", host=host, program=program)


def understands(program):
    """Up to which cluster version a program says that it understands."""
    done = subprocess.run([program, "version", "-o", "json"], capture_output=True, text=True, timeout=20, check=True)
    return json.loads(done.stdout)["understands"]


# ---- what runs


def pid(s, host, unit):
    """The unit's own process, as this machine counts."""
    box = s.cluster.chassis[host]
    path = f"{os.path.dirname(box.folders['slice'])}/units/{unit}/cgroup.procs"
    with open(path, encoding="ascii") as f:
        for number in map(int, f.read().split()):
            if unit.encode() in _words(number)[1:2]:
                return number
    return None


def _words(number):
    try:
        with open(f"/proc/{number}/cmdline", "rb") as f:
            return f.read().split(b"\0")
    except OSError:
        return []


def _image(number):
    """What is another after each exec, also of the same file: where the kernel put the program. None of a process that is
    gone."""
    try:
        with open(f"/proc/{number}/auxv", "rb") as f:
            return f.read()
    except OSError:
        return None


def runs_installed(s, host, unit):
    """Whether the unit's process runs the very file that is installed now."""
    number = pid(s, host, unit)
    try:
        return number is not None and os.path.samefile(f"/proc/{number}/exe", s.cluster.chassis[host].binary)
    except OSError:
        return False


def keeper(s, host):
    """The keeper's page."""
    box = s.cluster.chassis[host]
    argv = [box.binary, "keeper", "--show", "--dir", box.folders["keeper"]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    s.need(done.returncode == 0, f"the keeper of {host} shows nothing: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


# ---- what is done to it


def keeper_reloaded(s, host):
    """The keeper goes on as the installed program: the same process and instance, armed as before, its dog held."""
    box, number, before = s.cluster.chassis[host], pid(s, host, "keeper"), keeper(s, host)
    image, at = _image(number), s.now()
    box.order("signal keeper HUP")
    s.wait(lambda: _image(number) != image, f"the keeper of {host} goes on as the installed program", 30)
    s.wait(lambda: runs_installed(s, host, "keeper"), f"the keeper of {host} runs what is installed", 10)
    after = keeper(s, host)
    for key in ("instance", "boot", "armed", "retired"):
        s.need(after[key] == before[key], f"{host}: the keeper's {key} was {before[key]} and is {after[key]}")
    s.need(pid(s, host, "keeper") == number, f"{host}: another process is the keeper")
    s.need(not s.hardware("closed", host, at), f"{host}: the watchdog was let go")


def agent_restarted(s, host):
    """The agent is ended politely and started again, as `systemctl restart` does; how long it was away goes into the
    report."""
    box, began = s.cluster.chassis[host], s.now()
    box.order("signal agent TERM")
    again = lambda: s.events("agent-started", began, at=host)  # noqa: E731
    at = s.wait(again, f"another agent runs on {host}", 60)[0]["t_ns"]
    s.wait(lambda: s.cluster.status(host), f"the agent of {host} answers", 60)
    s.need(runs_installed(s, host, "agent"), f"{host}: the agent isn't what is installed")
    s.figure(f"away_ms_{host}", max(s.figures.get(f"away_ms_{host}", 0), (at - began) / MS))


# ---- inside


def inside(s, host, *argv, limit=60):
    """One command in the host's own namespaces, as a person logged in there; (exit status, output)."""
    box = s.cluster.chassis[host]
    first = box.order("status")["pid"]
    argv = ["nsenter", "-t", str(first), "-p", "-m", "-n", "--", box.binary, *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def doctor(s, host):
    """What the doctor says of versions on a host: [(state, text, next)]."""
    box = s.cluster.chassis[host]
    where = ["--config", box.folders["config"], "--socket", s.cluster.socket(host)]
    _, said = inside(s, host, "doctor", *where, "-o", "json")
    found = json.loads(said)["findings"]
    return [(f["state"], f["text"], f["next"]) for f in found if f["check"] == "versions"]


def cgroup(s, host, which, group):
    """Processes of a group in the host's slice, below `protected` or `pinned`: what the kernel says."""
    top, found = f"{s.cluster.chassis[host].folders['slice']}/{which}", set()
    for folder, _, _ in os.walk(top):
        if group not in folder[len(top) :].split("/"):
            continue
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as f:
                found |= {int(number) for number in f.read().split()}
        except OSError:
            # It went while it was looked at.
            continue
    return {number for number in found if procs.started_at(number) is not None}

"""What an idle cluster costs: processor time and memory of host agent, voter and keeper, by /proc.

    python3 -m bench.idle [--seconds 600] [--windows 10] [--gather MS] [--prefix P] [--folder DIR]

Three voters and two hosts without a vote, each with its keeper and a lease, at the default Δ of 50 ms and with nothing
to run. A sender pays for its own end of the wire only: hosts without a vote have a namespace and a cable of their own, and the
wire looks for frames by itself every 5 ms. With `--gather 0` they share their site's namespace, and each frame wakes the wire,
or the neighbour, on its sender's account.

Prints for each process its share of one core (mean over the whole span, the spread of its windows, the kernel's part), how
often it was woken, its resident memory; beside them the machine's load and the goals. A figure never fails the run; a process
that died, or a lease that wasn't held all the while, does: then nothing was measured.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from lab import net, spec
from lab.cluster import Cluster

TICKS = os.sysconf("SC_CLK_TCK")
#: The first of a site votes; those that don't are what most machines of a large cluster are.
HOSTS = {**spec.HOSTS, "tk-2": "tokyo", "os-2": "osaka"}
VOTERS = list(spec.HOSTS)
#: The issue's words for an idle host agent: share of a core in percent, resident megabytes.
GOALS = {"host": (0.5, 15.0)}
SETTLE_S = 20.0
#: How often the lab's wire looks for what was sent.
GATHER_MS = 5.0


class NotTaken(Exception):
    """The measurement couldn't be taken; the text says why."""


def processes(cluster):
    """{(host, role): pid} of every product process of the lab, found by its arguments and its host's folders."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if len(words) < 2 or os.path.realpath(words[0]) != os.path.realpath(cluster.binary):
            continue
        for host, box in cluster.chassis.items():
            if any(box.folders["run"] in word or box.folders["config"] in word for word in words):
                found[host, role(host, words[1])] = int(pid)
    return {who: pid for who, pid in found.items() if who[1] != "chassis"}


def role(host, command):
    """An agent is its host's voter, or the agent of a host without a vote."""
    return command if command != "agent" else "voter" if host in VOTERS else "host"


class Cost:
    """What a process has cost so far, and holds now."""

    def __init__(self, pid):
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            fields = f.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            status = dict(line.rstrip("\n").split(":", 1) for line in f)
        self.kernel = int(fields[12]) / TICKS
        self.seconds = int(fields[11]) / TICKS + self.kernel
        self.megabytes = int(status["VmRSS"].split()[0]) / 1000
        self.wakes = sum(_voluntary(pid, thread) for thread in os.listdir(f"/proc/{pid}/task"))
        self.began = fields[19]


def _voluntary(pid, thread):
    """How often a thread went to sleep; what short-lived threads did is lost with them."""
    try:
        with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("voluntary"))
    except OSError:
        return 0


def costs(found):
    """Of every process, at about one moment."""
    try:
        return time.monotonic(), {who: Cost(pid) for who, pid in found.items()}
    except OSError as e:
        raise NotTaken(f"a process ended while it was measured: {e}") from e


class Line:
    """One process over all windows."""

    def __init__(self, who, readings):
        self.host, self.role = who
        first, last = readings[0], readings[-1]
        self.mean = 100 * (last[1][who].seconds - first[1][who].seconds) / (last[0] - first[0])
        self.kernel = 100 * (last[1][who].kernel - first[1][who].kernel) / (last[0] - first[0])
        pairs = zip(readings, readings[1:])
        self.windows = [100 * (b[1][who].seconds - a[1][who].seconds) / (b[0] - a[0]) for a, b in pairs]
        self.wakes = (last[1][who].wakes - first[1][who].wakes) / (last[0] - first[0])
        self.megabytes = max(reading[1][who].megabytes for reading in readings)

    def __str__(self):
        spread = statistics.stdev(self.windows) if len(self.windows) > 1 else 0.0
        figures = f"{self.mean:>8.2f}{spread:>8.2f}{min(self.windows):>8.2f}{max(self.windows):>8.2f}{self.kernel:>8.2f}"
        return f"{self.host:<8}{self.role:<9}{figures}{self.wakes:>10.0f}{self.megabytes:>8.1f}"


def with_lease(cluster):
    """Hosts that say of themselves that they hold a lease."""
    held = []
    for host in cluster.hosts:
        lines = (cluster.status(host) or {}).get("hosts", [])
        if any(line["name"] == host and line.get("lease_left_ms") for line in lines):
            held.append(host)
    return held


def measure(cluster, options):
    """One reading before and one after each window."""
    c = cluster
    c.wait_for(lambda: c.leader()[0], "a leader")
    c.apply()
    c.wait_for(lambda: c.leader()[1] == spec.WITNESS, "a leader at the witness")
    c.wait_for(lambda: set(with_lease(c)) == set(c.hosts), "every host holds a lease")
    time.sleep(SETTLE_S)
    found = processes(c)
    missing = {(h, role(h, unit)) for h in c.hosts for unit in ("agent", "keeper")} - set(found)
    if missing:
        raise NotTaken(f"not found among the processes: {sorted(missing)}")
    readings, loads = [costs(found)], []
    for _ in range(options.windows):
        time.sleep(options.seconds / options.windows)
        readings.append(costs(found))
        loads.append(os.getloadavg()[0])
    if any(readings[-1][1][who].began != cost.began for who, cost in readings[0][1].items()):
        raise NotTaken("a process ended and another one took its number")
    if set(with_lease(c)) != set(c.hosts):
        raise NotTaken(f"leases at the end: only {with_lease(c)}\n{c.dump()}")
    return [Line(who, readings) for who in sorted(found, key=lambda who: (who[1], who[0]))], loads


def goals(lines):
    """Each goal, the worst process of its role, and whether that meets it."""
    for name, (share, megabytes) in GOALS.items():
        ours = [line for line in lines if line.role == name]
        worst, largest = max(line.mean for line in ours), max(line.megabytes for line in ours)
        yield f"{name}: {worst:.2f} % of a core (goal < {share} %): {_met(worst < share)}"
        yield f"{name}: {largest:.1f} MB (goal < {megabytes:.0f} MB): {_met(largest < megabytes)}"


def _met(is_met):
    return "met" if is_met else "not met"


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--gather", type=float, default=GATHER_MS, metavar="MS")
    parser.add_argument("--prefix", default="idle")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/idle")
    options = parser.parse_args()
    apart = {"own_machines": options.gather > 0, "gather_ms": options.gather}
    lab = spec.Options(hosts=HOSTS, voters=VOTERS, with_group=False, **apart)
    with Cluster(options.prefix, options.folder, lab) as cluster:
        lines, loads = measure(cluster, options)
    span = options.seconds / options.windows
    print(f"{options.seconds:.0f} s in windows of {span:.0f} s, Δ 50 ms, load {min(loads):.1f}–{max(loads):.1f}")
    print(f"{'':<17}{'% of a core':^40}")
    print(f"{'host':<8}{'process':<9}{'mean':>8}{'stdev':>8}{'min':>8}{'max':>8}{'kernel':>8}{'wakes/s':>10}{'MB':>8}")
    for text in [*lines, *goals(lines)]:
        print(text)


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, NotTaken, subprocess.SubprocessError) as e:
        sys.exit(f"the measurement couldn't be taken: {e}")

"""What an idle cluster costs: processor time and memory of host agent, voter and keeper, by /proc.

    python3 -m bench.idle [--seconds 600] [--folder DIR]

Three voters with leases, no host without a vote yet, at the default Δ of 50 ms. Prints for each process
its share of one core over the whole span and its resident memory at the end.
"""

import argparse
import os
import time

from lab import net, spec
from lab.cluster import Cluster

TICKS = os.sysconf("SC_CLK_TCK")


def processes(cluster):
    """{(host, role): pid} of every product process of the lab, found by its arguments and its host's cgroup."""
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
                found[host, words[1]] = int(pid)
    return found


def cost(pid):
    """(processor seconds so far, resident megabytes)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        resident = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return (int(fields[11]) + int(fields[12])) / TICKS, resident / 1000


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--prefix", default="idle")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/idle")
    options = parser.parse_args()
    with Cluster(options.prefix, options.folder, spec.Options()) as c:
        c.wait_ready()
        found = processes(c)
        before = {who: cost(pid) for who, pid in found.items()}
        load = os.getloadavg()[0]
        until = time.monotonic() + options.seconds
        while time.monotonic() < until:
            time.sleep(min(5.0, max(0.0, until - time.monotonic())))
        after = {who: cost(pid) for who, pid in found.items()}
    print(f"{options.seconds:.0f} s, Δ 50 ms, load {load:.1f}–{os.getloadavg()[0]:.1f}")
    print(f"{'host':<8}{'process':<10}{'% of a core':>12}{'MB resident':>13}")
    for host, role in sorted(found):
        used = after[host, role][0] - before[host, role][0]
        print(f"{host:<8}{role:<10}{100 * used / options.seconds:>12.2f}{after[host, role][1]:>13.1f}")


if __name__ == "__main__":
    main()

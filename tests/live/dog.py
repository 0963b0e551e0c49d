"""The keeper on a real /dev/watchdog: whatever ends it, the host is reset within W.

    python3 -m live.dog [--runs N] [--folder F]

Each run boots a QEMU guest as a host: its own kernel, softdog with nowayout, holder, keeper, and an agent that is its own
cluster of one voter, so that the keeper pets under a real lease. Then the deed is done inside, and the guest's own clock
says how long it lived on; QEMU ends at the reset. A guest that was kept from running meanwhile can't tell: that run is
invalid, repeated twice at most, never green.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

from lab import cluster, net, spec
from live.hostguest import HostGuest, image

#: (watchdog, what is done to the host). A kernel that panicked or hangs runs no timer of its own: only a watchdog beside
#: the processor can reset it, so softdog isn't asked to.
DEEDS = (("softdog", "kill"), ("i6300esb", "kill"), ("i6300esb", "panic"), ("i6300esb", "hang"))
#: A guest that didn't run for this long can't tell.
GAP_MS = 100.0
ATTEMPTS = 3


def files(folder, binary):
    """A cluster of one: agent's file, spec for the slowest watchdog here, certificates."""
    tls, authority = f"{folder}/tls", f"{folder}/authority"
    for old in (tls, authority):
        shutil.rmtree(old, ignore_errors=True)
    for words in (["init", "--dir", authority, "--cluster", spec.CLUSTER],
                  ["issue", "--dir", authority, "--host", "tk-1", "--site", "tokyo", "--out", tls]):  # fmt: skip
        subprocess.run([binary, "pki", *words], check=True, capture_output=True)
    agent = [f'cluster = "{spec.CLUSTER}"', 'host = "tk-1"', 'site = "tokyo"', 'data_dir = "/tmp/data"']
    agent += ['run_dir = "/run/antipode/agent"', "[network]", 'listen = ["127.0.0.1:7600"]', "[tls]"]
    agent += ['ca = "/etc/antipode/ca.pem"', 'cert = "/etc/antipode/identity.pem"', 'key = "/etc/antipode/identity.pem"']
    agent += ["[keeper]", 'dir = "/run/antipode/keeper"', 'slice = "/sys/fs/cgroup/antipode"', "fire_tests = 3"]
    agent += ["[voter]", "id = 1"]
    whole = ["[cluster]", f'name = "{spec.CLUSTER}"', 'watchdog_worst = "2200ms"', "[[site]]", 'name = "tokyo"']
    whole += ["[[host]]", 'name = "tk-1"', 'site = "tokyo"']
    found = {"etc/antipode/agent.toml": "\n".join(agent) + "\n", "etc/antipode/cluster.toml": "\n".join(whole) + "\n"}
    for name in ("ca.pem", "identity.pem"):
        with open(f"{tls}/{name}", encoding="ascii") as f:
            found[f"etc/antipode/{name}"] = f.read()
    return found


def page(guest):
    """What the keeper says."""
    status, text = guest.attempt("/antipode keeper --dir /run/antipode/keeper --show")
    try:
        return json.loads(text) if status == 0 else {}
    except ValueError:
        return {}


def armed(guest):
    """Brings the host's keeper under a lease."""
    apply = "/antipode apply /etc/antipode/cluster.toml --socket /run/antipode/agent/admin.sock"
    guest.wait(lambda: guest.attempt(apply)[0] == 0, "the spec is taken", 180)
    return guest.wait(lambda: _if_armed(guest), "the keeper pets under a lease", 120)


def _if_armed(guest):
    shown = page(guest)
    return shown if str(shown.get("state", "")).lower() == "armed" else None


def pids(guest):
    """The keeper's and the holder's process."""
    guest.run("touch /run/stop/keeper /run/stop/holder")
    return guest.run("cat /run/keeper.pid /run/holder.pid").split()


def run(folder, boot, deed):
    """One run: how long the host lived on after the deed, whether it was reset, and W."""
    guest = HostGuest(folder, f"{boot[2]}-{deed}", boot)
    try:
        guest.wait_up()
        before = armed(guest)
        result = {"dog": boot[2], "deed": deed, "w_ms": before["worst_ms"]}
        told = do(guest, deed)
        try:
            guest.process.wait(60)
        except subprocess.TimeoutExpired:
            return result | {"reset": False, "console": guest.console()[-600:]}
        return result | measure(deed, guest.ticks(), (time.monotonic() - told) * 1000)
    finally:
        guest.cut()


def do(guest, deed):
    """Does the deed; when."""
    what = {"kill": lambda: f"kill {' '.join(pids(guest))}", "panic": lambda: "panic", "hang": lambda: "none"}[deed]()
    guest.say(f"doom /dev/vport0p1 {what}")
    if deed == "hang":
        guest.wait(lambda: len(guest.ticks()) > 100, "the host is seen to live", 60)
        return guest.hang()
    guest.wait(lambda: any(w == "deed" for w, _ in guest.ticks()), "the deed is done", 60)
    return time.monotonic()


def measure(deed, ticks, outside_ms):
    """How long the host lived on: by its own clock where it could still tell, by ours where its kernel was dead."""
    # What stood still before a deed that is timed from inside does no harm.
    first = next((n for w, n in ticks if w == "deed"), 0) if deed == "kill" else 0
    times = [n for _, n in ticks if n >= first]
    gap = max((b - a for a, b in zip(times, times[1:])), default=0) / 1e6
    found = {"reset": True, "gap_ms": round(gap, 1), "outside_ms": round(outside_ms, 1)}
    lived = outside_ms
    if deed == "kill":
        lived = (times[-1] - next(n for w, n in ticks if w == "deed")) / 1e6
    return found | {"lived_ms": round(lived, 1)}


def told(folder, boot, deed):
    """The first valid run of a few."""
    for _ in range(ATTEMPTS):
        result = run(folder, boot, deed)
        if not result["reset"] or result["gap_ms"] <= GAP_MS:
            return result
        print(f"  can't tell: the guest stood still for {result['gap_ms']} ms", flush=True)
    return result


def verdict(result):
    """passed, failed or invalid."""
    if not result["reset"] or result["lived_ms"] > result["w_ms"] + result["gap_ms"]:
        return "failed"
    return "invalid" if result["gap_ms"] > GAP_MS else "passed"


def main():
    """Runs all deeds, prints each and the worst."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=sorted({deed for _, deed in DEEDS}))
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/dog")
    options = parser.parse_args()
    binary = cluster.binary()
    os.makedirs(options.folder, exist_ok=True)
    laid_in = files(options.folder, binary)
    chosen = [(dog, deed) for dog, deed in DEEDS if options.only in (None, deed)]
    boots = {dog: image(options.folder, binary, laid_in, dog) for dog in dict(chosen)}
    results = []
    for dog, deed in chosen:
        for number in range(1, options.runs + 1):
            results.append(told(options.folder, boots[dog], deed))
            results[-1]["verdict"] = verdict(results[-1])
            print(f"{dog} {deed} {number}/{options.runs}: {json.dumps(results[-1])}", flush=True)
    for dog, deed in chosen:
        mine = [r for r in results if (r["dog"], r["deed"]) == (dog, deed)]
        worst = max(r.get("lived_ms", float("inf")) for r in mine)
        print(f"{dog:9} {deed:6} worst of {len(mine)}: {worst:.0f} ms; W {mine[0]['w_ms']:.0f} ms")
    words = [r["verdict"] for r in results]
    return 1 if "failed" in words else 3 if "invalid" in words else 0


if __name__ == "__main__":
    sys.exit(main())

"""A group that adapters run: its workload by `process-workload`, its data by `ship-rounds`, moved and taken over for real;
pinned through a cut that ends its lease, and with it its mirror; with a mirror that stands still.

    python3 -m live_data.adapters [--folder F] [--prefix P]

Judged by what the workload itself found on its volume: after a switchover every number that it ever told; after the loss of
its host, the volume of one moment, not older than was said. Never two: its lives don't overlap. Exit status: 0 passed, 1 not.
"""

import argparse
import glob
import json
import os
import signal
import subprocess
import sys
import time

from lab import net, records, spec
from lab.cluster import CliError, Cluster

HOME, AWAY = "tk-1", "os-1"
PORT, VOLUME_BYTES = 10810, 1 << 20
TARGET_RPO_S = 60
EXAMPLES = f"{os.path.dirname(net.TESTS)}/examples/adapters"
COUNTER = f"{net.TESTS}/live_data/counter.py"


class AdapterCluster(Cluster):
    """A lab cluster whose one group is run by the example adapters."""

    def __init__(self, prefix, folder):
        super().__init__(prefix, folder, spec.Options(mode="async"))

    def told(self, host):
        """Where the workload tells its numbers."""
        return f"{self.folder}/hosts/{host}/counted.jsonl"

    def apply(self):
        """Gives the cluster its spec; a blank volume lies on both hosts."""
        lines = ["[cluster]", f'name = "{spec.CLUSTER}"', "lab = true", 'declare = "eager"', 'round_trip_max = "40ms"']
        for site in net.SITES:
            lines += ["[[site]]", f'name = "{site}"', *(["witness = true"] if site == spec.WITNESS else [])]
        for host, site in self.hosts.items():
            lines += ["[[host]]", f'name = "{host}"', f'site = "{site}"', 'fencing = [["self"]]']
            lines += [f'addresses = ["{self.addresses[host]}:{spec.AGENT_PORT}"]']
        lines += ["[[group]]", f'name = "{spec.GROUP}"', 'tier = "auto"', 'home = "tokyo"', 'accept = ["self-fenced"]']
        lines += [f'target_rpo = "{TARGET_RPO_S}s"', 'hold_off = "0s"', 'failback = { policy = "manual", stable_for = "5s" }']
        tls = f"{self.folder}/hosts/{{host}}/tls"
        params = f'{{ identity = "{tls}/identity.pem", ca = "{tls}/ca.pem", every_seconds = 1 }}'
        keys = f'mode = "async", program = "{EXAMPLES}/ship-rounds", port = {PORT}, look_seconds = 15, params = {params}'
        path = f"{self.folder}/hosts/{{host}}/counter.raw"
        lines += ["[[group.volume]]", 'name = "root"', f'replication = {{ kind = "command", path = "{path}", {keys} }}']
        for site, host in (("tokyo", HOME), ("osaka", AWAY)):
            volume = path.replace("{host}", host)
            with open(volume, "wb") as f:
                f.truncate(VOLUME_BYTES)
            argv = json.dumps([sys.executable, COUNTER, volume, self.told(host)])
            lines += [f"[group.at.{site}]", 'kind = "command"', f'hosts = ["{host}"]', "look_seconds = 30"]
            lines += [f'program = "{EXAMPLES}/process-workload"', f"params = {{ argv = {argv} }}"]
        file = f"{self.folder}/cluster.toml"
        with open(file, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        self.cli(self.leader()[0], "apply", file, changes=True)

    def lives(self, host):
        """The workload's lives on a host: what each found, and told."""
        found = []
        for record in records.read(self.told(host)):
            if "found" in record:
                found.append({"host": host, **record, "numbers": {}})
            else:
                found[-1]["numbers"][record["count"]] = record["t_ns"]
        return found

    def lives_on(self, host, epoch):
        """Waits until a life of a later epoch than this tells numbers on the host, and its copy follows."""

        def one():
            later = [life for life in self.lives(host) if life["epoch"] > epoch and len(life["numbers"]) >= 10]
            return later[-1] if later else None

        return self.wait_for(one, f"the workload counts on {host} after epoch {epoch}", 180)

    def mirror(self, host):
        """Processes of the mirror on a host, by the kernel's word."""
        slices = f"{self.chassis[host].folders['slice']}/protected"
        found = set()
        for path in glob.glob(f"{slices}/*/{spec.GROUP}+mirror.root/cgroup.procs"):
            try:
                with open(path, encoding="ascii") as f:
                    found |= {int(number) for number in f.read().split()}
            except OSError:
                # It went while it was looked at.
                continue
        return found

    def pin(self, host):
        """The group's pin as a host shows it; empty without one."""
        groups = (self.status(host) or {}).get("groups", [])
        return next((g.get("pin") for g in groups if g["name"] == spec.GROUP), None) or {}

    def is_followed(self, site):
        """Whether the group runs at a site, and its copy follows with a measured lag."""
        group = self.group()
        return group.get("site") == site and self.is_protected(group)


def need(held, what):
    """A fact that must be so."""
    if not held:
        raise AssertionError(what)


def is_ordered(cluster):
    """Whether a switchover to the other side was accepted: not while the copy is still being protected anew."""
    try:
        cluster.cli(cluster.leader()[0], "switchover", spec.GROUP, "--to", "osaka", "--reason", "a test", changes=True)
        return True
    except CliError as error:
        if "under way" not in str(error):
            raise
        return False


def goes_on(cluster, first, what):
    """The life that was there is still the only one, and tells more numbers; returns how many it told."""
    told = len(cluster.lives(HOME)[-1]["numbers"])
    cluster.wait_for(lambda: len(cluster.lives(HOME)[-1]["numbers"]) >= told + 5, f"it counts on {what}", 60)
    lives = cluster.lives(HOME)
    need(len(lives) == 1 and lives[0]["epoch"] == first["epoch"], f"{what}: other lives: {len(lives)}")
    need(not cluster.lives(AWAY), f"{what}: it ran on {AWAY}")
    return len(lives[0]["numbers"])


def pinned(cluster, first):
    """A cut longer than the lease: the mirror ends with it, the workload goes on; untied, its copy follows again."""
    why = ["--reason", "a test"]
    before = cluster.mirror(HOME)
    need(before, "no mirror is to be seen")
    cluster.cli(cluster.leader()[0], "freeze", "--pin", spec.GROUP, *why, changes=True)
    in_force = lambda: cluster.pin(HOME).get("acknowledged") and cluster.pin(HOME).get("in_force")
    cluster.wait_for(in_force, "the pin is in force", 60)
    cluster.net.isolate("tokyo", nets=("wan",))
    cluster.wait_for(lambda: not cluster.mirror(HOME), "the lease's end ends the mirror", 60)
    goes_on(cluster, first, "pinned, without a lease")
    cluster.net.heal()
    hosts = lambda: {h["name"]: h for h in (cluster.status() or {}).get("hosts", [])}
    is_back = lambda: hosts().get(HOME, {}).get("state") == "admitted" and hosts()[HOME]["host_epoch"] != "1"
    cluster.wait_for(is_back, "its host is admitted anew", 90)
    cluster.cli(HOME, "thaw", "--pin", spec.GROUP, *why, changes=True, limit=40)
    cluster.wait_for(lambda: cluster.mirror(HOME) - before, "a mirror is begun anew", 120)
    cluster.wait_for(lambda: cluster.is_followed("tokyo"), "its copy follows", 120)
    print(f"PASSED pinned: it counted on to {goes_on(cluster, first, 'untied')}", flush=True)


def silent(cluster, first):
    """A mirror that stands still, or is killed, is begun anew: nothing waits for it."""
    for word, how in (("stopped", signal.SIGSTOP), ("killed", signal.SIGKILL)):
        cluster.wait_for(lambda: cluster.is_followed("tokyo") and cluster.mirror(HOME), "a mirror that follows", 120)
        before = cluster.mirror(HOME)
        for pid in before:
            os.kill(pid, how)
        at = time.monotonic()
        anew = lambda: cluster.mirror(HOME) and not cluster.mirror(HOME) & before
        cluster.wait_for(anew, f"a mirror that was {word} is begun anew", 180)
        # Its lag is less than the time since: it was measured after that.
        is_new = lambda: (cluster.group().get("data", {}).get("lag_ms") or 1e12) < (time.monotonic() - at) * 500
        cluster.wait_for(is_new, "a lag of the new mirror is told", 120)
        goes_on(cluster, first, f"while its mirror was {word}")
        print(f"PASSED a mirror that was {word}: another one follows", flush=True)


def moved(cluster, first):
    """A switchover: nothing that was told is missing."""
    cluster.wait_for(lambda: is_ordered(cluster), "no plan stands in the way of a switchover", 120)
    second = cluster.lives_on(AWAY, first["epoch"])
    first = next(life for life in cluster.lives(HOME) if life["epoch"] == first["epoch"])
    last = max(first["numbers"])
    # The number under way when it was stopped may be on the volume and not have been told.
    need(second["found"] in (last, last + 1), f"told up to {last}, found {second['found']}")
    need(not second["torn"], f"torn: {second}")
    need(max(first["numbers"].values()) < second["t_ns"], "two lives at once")
    print(f"PASSED moved: nothing lost of {last} numbers", flush=True)
    return second


def taken_over(cluster, second):
    """The loss of the host: the other side goes on from one moment, not older than the target."""
    cluster.wait_for(lambda: cluster.is_followed("osaka"), "the old home follows", 180)
    # The leader hears the lag by beats, and only what it heard itself lets it give the group away.
    counted = len(cluster.lives(AWAY)[-1]["numbers"])
    cluster.wait_for(lambda: len(cluster.lives(AWAY)[-1]["numbers"]) >= counted + 20, "it counts on for a while", 60)
    shown = cluster.group()["data"]
    at = cluster.power_off(AWAY)
    third = cluster.lives_on(HOME, second["epoch"])
    second = next(life for life in cluster.lives(AWAY) if life["epoch"] == second["epoch"])
    need(not third["torn"], f"torn: {third}")
    need(max(second["numbers"].values()) < third["t_ns"], "two lives at once")
    bounds = (second["found"], max(second["numbers"]) + 1)
    need(bounds[0] <= third["found"] <= bounds[1], f"it found {third['found']}, and not one of {bounds}")
    lost = sorted(n for n in second["numbers"] if n > third["found"])
    age_s = (at - second["numbers"][lost[0]]) / 1e9 if lost else 0.0
    need(age_s <= TARGET_RPO_S, f"{age_s:.1f} s were lost")
    figures = {"lost": len(lost), "lost_s": round(age_s, 2), "lag_ms": shown["lag_ms"], "of": max(second["numbers"])}
    print(f"PASSED taken over {json.dumps(figures)}", flush=True)


def main():
    """Plays it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", default="ladapt")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/live-adapters")
    options = parser.parse_args()
    folder = os.path.abspath(options.folder)
    subprocess.run(["rm", "-rf", f"{folder}/hosts"], check=True)
    os.makedirs(folder, exist_ok=True)
    with AdapterCluster(options.prefix, folder) as cluster:
        try:
            cluster.wait_ready(240)
            first = cluster.lives_on(HOME, -1)
            pinned(cluster, first)
            silent(cluster, first)
            taken_over(cluster, moved(cluster, first))
        except (AssertionError, CliError) as error:
            print(f"FAILED {error}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

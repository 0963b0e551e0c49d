"""The demonstration: a site dies, its virtual machine comes up elsewhere with nothing lost, and goes home by itself.

    make demo            the story, its timeline, report.json; exit status of the judge
    make demo KEEP=1     the same, and the cluster stays up

What is shown as a fact is computed afterwards by `judge` from raw files; while the story runs, this program only does
what a disaster and a person would do, and says so. A run in which the machine itself stalled is invalid and repeated,
twice at most.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

from demo import judge, timeline
from lab import net, records, spec
from lab.cluster import Cluster

INVALID, ATTEMPTS = 3, 3
LOST, TAKEOVER = "tokyo", "osaka"
#: How long the client is served before the kill, and at home again before its mirror is waited for.
CALM_S = 6.0
#: How many answers it gives at home again before the end: some eight seconds' worth.
HOME_ANSWERS = 100


def say(text):
    """One line of the story, at once."""
    print(text, flush=True)


class Demo:
    """One run."""

    def __init__(self, prefix, folder, keep):
        self.folder, self.keep = folder, keep
        # Nothing of an earlier run may pass for this one's: not to the story, not to the judge.
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.journal = records.Writer(f"{folder}/run.jsonl", "demo")
        self.cluster = Cluster(prefix, folder, record=self.note)

    def note(self, **record):
        """Keeps what was done, for the judge."""
        self.journal.write([{"t_ns": time.monotonic_ns(), **record}])

    def mark(self, name, **more):
        """Keeps an instant and the machine's load at it."""
        self.note(kind="mark", name=name, **more)
        self.note(kind="load", at=name, loadavg=os.getloadavg())

    def tell(self):
        """The whole story."""
        c = self.cluster
        self.note(kind="cluster", lost_site=LOST, takeover_site=TAKEOVER, witness=spec.WITNESS, hosts=c.hosts,
                  declare=c.options.declare, group=spec.GROUP, target=spec.ADDRESS)  # fmt: skip
        say(f"three sites in network namespaces, {2 * net.DELAY_MS:.0f} ms round trips; declare = \"{c.options.declare}\"")
        c.up()
        c.wait_ready()
        self.timing()
        say(f"virtual machine serving at {LOST}, each write mirrored to {TAKEOVER} before it is answered")
        client = c.client()
        c.wait_for(lambda: self.served_at(LOST) >= CALM_S * 5, f"the client is served at {LOST}")
        self.calm()
        self.kill()
        c.wait_for(lambda: self.served_at(TAKEOVER) >= 10, f"the client is served at {TAKEOVER}", 90)
        say(f"  {TAKEOVER} serves the same address")
        c.keep_disk(c.at(LOST)[0], f"{LOST}-crashed")
        c.power_on(*c.at(LOST))
        self.mark("power-back")
        say(f"  {LOST} has power again; from here on nobody gives a command")
        c.wait_for(lambda: self.served_at(LOST, after=TAKEOVER) >= CALM_S * 5, f"the client is served at {LOST} again", 150)
        say(f"  back at {LOST}")
        c.wait_for(c.is_in_sync, f"mirrored to {TAKEOVER} again", 60)
        # Some seconds of the mirrored guest as well: it stood still for 0.8 s while its mirror was attached, and of a shorter
        # life that alone leaves too few stamps to judge it.
        c.wait_for(lambda: self.served_at(LOST, after=TAKEOVER) >= HOME_ANSWERS, f"the client is served at {LOST} for a while", 60)
        self.end(client)

    def timing(self):
        """Keeps the time parameters in force, as the product prints them."""
        host = self.cluster.at(spec.WITNESS)[0]
        shown = json.loads(self.cluster.cli(host, "config", "timing", "-o", "json"))
        values = {k: _milliseconds(v) for k, v in shown.get("timing", shown).items()}
        with open(f"{self.folder}/timing.json", "w", encoding="utf-8") as f:
            json.dump({**{k: v for k, v in values.items() if v is not None}, "one_way": net.DELAY_MS}, f, indent=1)

    def answers(self):
        """(site, epoch) of each answer so far."""
        found = records.read(f"{self.folder}/client.jsonl")
        return [(self.cluster.hosts.get(r["host"]), r["epoch"]) for r in found if r["kind"] == "request" and "n" in r]

    def served_at(self, site, after=None):
        """How many answers came from a site, counted from the last answer of `after`."""
        sites = [s for s, _ in self.answers()]
        if after:
            sites = sites[len(sites) - sites[::-1].index(after) :] if after in sites else []
        return sites.count(site)

    def calm(self):
        """Waits until all is as it should be before a disaster: leader at the witness, in sync, neighbour known."""
        c = self.cluster
        c.wait_for(lambda: c.leader()[1] == spec.WITNESS and c.is_in_sync(), "calm before the kill")
        host, site = c.leader()
        self.mark("leader", host=host, site=site)
        say(f"leader: {host} at {site} (the witness); client's answers so far: {len(self.answers())}")

    def kill(self):
        """Everything of the site, at one instant."""
        self.note(kind="load", at="kill", loadavg=os.getloadavg())
        self.cluster.power_off(*self.cluster.at(LOST))
        say(f"KILLED: everything of {LOST}, at one instant")

    def end(self, client):
        """Stops the client, then everything; keeps the disks as they are."""
        client.terminate()
        client.wait(30)
        self.mark("end")
        c = self.cluster
        if not self.keep:
            c.power_off(*c.hosts)
        for site in (LOST, TAKEOVER):
            c.keep_disk(c.at(site)[0], site)
        c.collect()

    def how_to_talk(self):
        """What KEEP=1 prints."""
        c = self.cluster
        host = c.at(spec.WITNESS)[0]
        say(f"\nThe cluster is up. Its files: {self.folder}. Talk to it, as root, from this folder:")
        say(f"  {c.binary} status --socket {c.socket(host)}")
        say(f"  {c.binary} explain group {spec.GROUP} --socket {c.socket(host)}")
        say(f"  ip netns exec {c.net.netns(net.CLIENT)} curl -s 'http://{spec.ADDRESS}/w?id=me'")
        say(f"  PYTHONPATH=tests python3 -m lab.net cut {c.prefix} tokyo osaka      # and: heal {c.prefix}")
        say(f"  PYTHONPATH=tests python3 -m demo.run --down --prefix {c.prefix}")


def _milliseconds(value):
    """A span as the product may print it, in milliseconds; a plain number stays one."""
    if isinstance(value, dict) and {"secs", "nanos"} <= set(value):
        return value["secs"] * 1000 + value["nanos"] / 1e6
    return value if isinstance(value, (int, float)) else None


def attempt(options):
    """One run and its judgement; returns the judge's exit status."""
    demo = Demo(options.prefix, options.folder, options.keep)
    left_up = False
    try:
        demo.tell()
        left_up = options.keep
    except AssertionError as e:
        demo.cluster.collect()
        say(f"\nTHE STORY BROKE OFF: {e}")
        return 1
    finally:
        if not left_up:
            demo.cluster.down()
    status = judge.main([options.folder])
    report = f"{options.folder}/report.json"
    if os.path.exists(report):
        say(timeline.text(report))
    if left_up:
        demo.how_to_talk()
    return status


def main():
    """Runs until a run isn't invalid, three times at most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", default="demo")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/demo")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    parser.add_argument("--down", action="store_true", help="end a cluster that was left up")
    options = parser.parse_args()
    options.folder = os.path.abspath(options.folder)
    if options.down:
        Cluster(options.prefix, options.folder).down()
        return 0
    os.makedirs(options.folder, exist_ok=True)
    for number in range(1, ATTEMPTS + 1):
        status = attempt(options)
        if status != INVALID or number == ATTEMPTS:
            return status
        say(f"\nThat run can't tell (see above); run {number + 1} of {ATTEMPTS} at most.\n")
    return INVALID


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as timeout:
        sys.exit(f"a command hung: {timeout}")

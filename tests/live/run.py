"""Runs the cases: one cluster for all cases of equal options, each case judged by stamps.

    python3 -m live.run [--quick | --long | --only NAME,NAME] [--list] [--folder F] [--prefix P]

A case passes only on a valid run. A run in which the machine stalled what plays its hardware, or starved a guest of its
stamps, is *invalid*: it is repeated, twice at most, and never counted as passed. Exit status: 0 all passed · 1 one failed
· 3 none failed, but one could not be told. What every run left is in FOLDER/CLUSTER; results in FOLDER/report.json.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from lab import cluster, net
from lab.chassis import ChassisError
from lab.cluster import CliError
from lab.net import NetError
from live import judge, network, power, processes, releases, sites  # noqa: F401 (most register their cases)
from live.case import CASES
from live.stage import Broken, Stage

INVALID, ATTEMPTS = 3, 3


def say(text):
    """One line, at once."""
    print(text, flush=True)


class Runner:
    """Plays cases, cluster by cluster."""

    def __init__(self, options):
        self.options, self.results, self.stage = options, {}, None

    def run(self, cases):
        """Plays all; the exit status."""
        groups = {}
        for case in cases:
            groups.setdefault(case.stage_key(), []).append(case)
        for number, group in enumerate(groups.values(), start=1):
            self.run_group(f"{self.options.folder}/{number}", sorted(group, key=lambda c: (c.last, c.name.startswith("power"))))
        words = [r["verdict"] for r in self.results.values()]
        with open(f"{self.options.folder}/report.json", "w", encoding="utf-8") as f:
            json.dump({"api_version": 1, "cases": self.results}, f, indent=1)
        say(f"\n{words.count('passed')} of {len(words)} cases passed, {words.count('failed')} failed, "
            f"{words.count('invalid')} can't be told")  # fmt: skip
        return 1 if "failed" in words else INVALID if "invalid" in words else 0

    def run_group(self, folder, cases):
        """Plays cases of equal options; a cluster that a case left broken is thrown away."""
        tries, waiting = {}, list(cases)
        try:
            while waiting:
                self.play_next(folder, waiting, tries)
        finally:
            self.leave()

    def play_next(self, folder, waiting, tries):
        """One attempt of the first case that waits; a run that can't tell waits again, twice at most."""
        case = waiting.pop(0)
        tries[case.name] = tries.get(case.name, 0) + 1
        self.stage = self.stage or self.build(case, f"{folder}-{case.name}-{tries[case.name]}")
        if self.stage is None:
            self.note(case, {"verdict": "failed", "problems": ["the cluster didn't come up"]})
            return
        verdict, clean = self.play(self.stage, case)
        if not clean or case.last:
            self.leave()
        if verdict["verdict"] == "invalid" and tries[case.name] < ATTEMPTS:
            say(f"  can't tell ({'; '.join(verdict['invalid'])}); once more, run {tries[case.name] + 1} of {ATTEMPTS}")
            waiting.insert(0, case)

    def leave(self):
        """Ends the cluster in use, if any."""
        if self.stage:
            self.stage.down()
            self.stage = None

    def build(self, case, folder):
        """A cluster for the case, up and healthy; None when it can't be had."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        stage = Stage(self.options.prefix, folder, case.spec_options(), lambda c: self.fit(c, case.hardware))
        try:
            stage.up()
            return stage
        except (AssertionError, CliError, ChassisError, NetError, subprocess.TimeoutExpired) as e:
            say(f"the cluster didn't come up ({folder}): {e}")
            stage.down()
            return None
        except BaseException:
            stage.down()
            raise

    def fit(self, lab, hardware):
        """Gives a cluster the hardware and the build that a case wants."""
        if "installed" in hardware:
            releases.fit(lab, hardware["installed"])
        for box in lab.chassis.values():
            box.watchdog_ms = hardware.get("watchdog_ms", box.watchdog_ms)
            if "mutants" in hardware:
                box.env["ANTIPODE_MUTANTS"] = hardware["mutants"]
                box.binary = f"{cluster.binary()}-mutants"

    def play(self, stage, case):
        """One attempt; (its result, whether the cluster can be used again)."""
        say(f"{case.name}: {case.claim}")
        broken = None
        try:
            stage.begin()
            case.story(stage)
        except (AssertionError, CliError, ChassisError, NetError, subprocess.TimeoutExpired) as e:
            broken = str(e)
        stage.look()
        verdict = judge.judge(stage, time.monotonic_ns(), case.overlap_wanted)
        if broken:
            # What never came to be can be the stall's fault; what was seen can't.
            verdict.problems.append(broken)
        result = {"verdict": verdict.word, "problems": verdict.problems, "invalid": verdict.invalid}
        result |= {"figures": stage.figures | verdict.figures, "took_s": round((time.monotonic_ns() - stage.since) / 1e9, 1)}
        result |= {"load": os.getloadavg()[0], "folder": stage.cluster.folder}
        self.note(case, result)
        return result, not broken and not verdict.problems

    def note(self, case, result):
        """Keeps and tells a result; the last attempt's counts."""
        self.results[case.name] = result
        say(f"  {result['verdict'].upper()} after {result.get('took_s', 0)} s {json.dumps(result.get('figures', {}))}")
        for text in result["problems"]:
            say(f"  DOESN'T HOLD: {text}")


def chosen(options):
    """The cases that the options name."""
    if options.only:
        unknown = [name for name in options.only.split(",") if name not in CASES]
        if unknown:
            sys.exit(f"no case {', '.join(unknown)}; see --list")
        return [CASES[name] for name in options.only.split(",")]
    if options.quick:
        return [c for c in CASES.values() if c.quick]
    return [c for c in CASES.values() if options.long or not c.long]


def main():
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="the few that every test run plays")
    which.add_argument("--long", action="store_true", help="also those that take minutes")
    which.add_argument("--only", metavar="NAME,NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--prefix", default="live")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/live")
    options = parser.parse_args()
    options.folder = os.path.abspath(options.folder)
    # Whoever ends this ends the lab as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    cases = chosen(options)
    if options.list:
        for case in cases:
            print(f"{case.name:36} {case.claim}")
        return 0
    return Runner(options).run(cases)


if __name__ == "__main__":
    sys.exit(main())

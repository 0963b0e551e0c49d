"""Judges one case by what the observer received and what the client got: never two, and whether that can be told.

A verdict has problems (what doesn't hold) and reasons why the run can't tell (`invalid`); an invalid run is neither
passed nor failed, unless something certain doesn't hold.
"""

import collections

from lab import oracle

#: An epoch that served for less has too few stamps to count a share of.
SERVED_MIN_NS = 500_000_000


class Verdict:
    """What became of a case."""

    def __init__(self):
        self.problems, self.invalid, self.figures = [], [], {}

    @property
    def word(self):
        """passed, failed or invalid."""
        return "failed" if self.problems else "invalid" if self.invalid else "passed"


def judge(stage, until, overlap_wanted=False):
    """The verdict on what happened on the stage from the case's beginning until a moment."""
    verdict = Verdict()
    found = [s for s in stage.stamps() if s["t_ns"] <= until]
    samples = len(oracle.overlapping(found))
    verdict.figures["overlap_samples"] = samples
    if overlap_wanted and samples == 0:
        verdict.problems.append("a build that grants without evidence showed no overlap: this case proves nothing")
    if not overlap_wanted:
        if samples:
            verdict.problems.append(f"two instances lived at one time: {samples} stamps inside another's life")
        _one_host_an_epoch(verdict, found)
        _one_history(verdict, stage.answers(), getattr(stage, "loses", False))
    _enough(verdict, stage, found, until)
    _stalls(verdict, stage, until)
    return verdict


def _one_host_an_epoch(verdict, found):
    hosts = collections.defaultdict(set)
    for s in found:
        hosts[s["epoch"]].add(s["host"])
    for epoch, lived in hosts.items():
        if len(lived) > 1:
            verdict.problems.append(f"epoch {epoch} was lived by {sorted(lived)}")
    order = [s["epoch"] for s in sorted(found, key=lambda s: s["t_ns"])]
    if any(later < earlier for earlier, later in zip(order, order[1:])):
        verdict.problems.append("an older epoch lived after a newer one")


def _one_history(verdict, answers, loses):
    """An acknowledged write that a takeover lost is numbered twice. A story that is about such a loss says so and measures
    it; within one epoch there is no loss either way."""
    if loses:
        for epoch in sorted({a["epoch"] for a in answers}):
            _one_history(verdict, [a for a in answers if a["epoch"] == epoch], False)
        verdict.figures["answers"] = len(answers)
        return
    numbers = [a["n"] for a in sorted(answers, key=lambda a: a["done_ns"])]
    twice = len(numbers) - len(set(numbers))
    verdict.figures["answers"] = len(numbers)
    if twice or numbers != sorted(numbers):
        verdict.problems.append(f"{twice} numbers were given to two answers, or out of order: two histories")


def _enough(verdict, stage, found, until):
    shares = {}
    answers = [a for a in stage.answers() if a["done_ns"] <= until]
    for epoch in sorted({a["epoch"] for a in answers}):
        times = [a["done_ns"] for a in answers if a["epoch"] == epoch]
        if max(times) - min(times) < SERVED_MIN_NS:
            continue
        seen, due = oracle.count_and_due(found, epoch, min(times), max(times))
        shares[str(epoch)] = round(seen / due, 2)
        if not oracle.is_enough(seen, due):
            verdict.invalid.append(f"epoch {epoch}: {seen} stamps of {due} due while serving")
    verdict.figures["stamps_share"] = shares


def _stalls(verdict, stage, until):
    for ms in oracle.blind_ms([r for r in stage.seen["stamps"] if stage.since <= r["t_ns"] <= until]):
        verdict.invalid.append(f"observer stalled {ms:.0f} ms at a change of instance")
    for host in stage.cluster.hosts:
        for e in stage.hardware("stalled", host):
            if e["t_ns"] <= until:
                verdict.invalid.append(f"host stalled {e.get('ms')} ms ({host})")

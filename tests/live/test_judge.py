"""The judge of live cases, shown runs that are as they must be and runs spoilt in each way that it has to see."""

import json
import os
import tempfile
import types
import unittest

from lab import records
from live import judge
from live.case import CASES
from live import network, power, processes, sites  # noqa: F401 (each registers its cases)

TICK, S = 10_000_000, 1_000_000_000


def stamps(host, epoch, boot, since_s, until_s):
    """A guest that stamped without a miss."""
    times = range(int(since_s * S), int(until_s * S), TICK)
    return [{"kind": "stamp", "t_ns": t, "host": host, "epoch": epoch, "guest_boot": boot} for t in times]


def answers(host, epoch, numbers, since_s, until_s):
    """Answers spread over a span."""
    step = int((until_s - since_s) * S / max(1, len(numbers) - 1))
    at = int(since_s * S)
    return [{"n": n, "host": host, "epoch": epoch, "done_ns": at + i * step} for i, n in enumerate(numbers)]


class Stage:
    """What the judge sees of a stage."""

    def __init__(self):
        self.since = 0
        self.cluster = types.SimpleNamespace(hosts={"tk-1": "tokyo", "os-1": "osaka"})
        self.found = stamps("tk-1", 1, "a", 0, 5) + stamps("os-1", 2, "b", 8, 12)
        self.got = answers("tk-1", 1, range(40), 0.1, 4.9) + answers("os-1", 2, range(40, 80), 8.1, 11.9)
        self.stalls, self.seen = [], {"stamps": []}

    def stamps(self):
        return self.found

    def answers(self):
        return self.got

    def hardware(self, kind, host):
        return [e for e in self.stalls if kind == "stalled" and e["at"] == host]


class Verdicts(unittest.TestCase):
    def word(self, stage, wanted=False):
        return judge.judge(stage, 20 * S, wanted).word

    def test_a_takeover_without_fault_passes(self):
        self.assertEqual(self.word(Stage()), "passed")

    def test_a_lost_answer_passes_only_where_the_story_is_about_it(self):
        stage = Stage()
        stage.got = answers("tk-1", 1, range(40), 0.1, 4.9) + answers("os-1", 2, range(38, 80), 8.1, 11.9)
        self.assertEqual(self.word(stage), "failed")
        stage.loses = True
        self.assertEqual(self.word(stage), "passed")
        stage.got += answers("os-1", 2, [79], 11.95, 11.99)
        self.assertEqual(self.word(stage), "failed")

    def test_one_stamp_inside_another_life_fails(self):
        stage = Stage()
        stage.found += stamps("tk-1", 1, "a", 8.0, 8.01)
        self.assertEqual(self.word(stage), "failed")

    def test_too_few_stamps_while_serving_can_not_be_told(self):
        stage = Stage()
        stage.found = [s for s in stage.found if s["host"] == "tk-1" or s["t_ns"] // TICK % 10 < 7]
        self.assertEqual(self.word(stage), "invalid")

    def test_a_stalled_host_can_not_be_told(self):
        stage = Stage()
        stage.stalls = [{"at": "os-1", "t_ns": 9 * S, "ms": 130}]
        self.assertEqual(self.word(stage), "invalid")

    def test_an_overlap_is_certain_even_where_stamps_are_missing(self):
        stage = Stage()
        stage.found = [s for s in stage.found if s["host"] == "tk-1" or s["t_ns"] // TICK % 10 < 7]
        stage.found += stamps("tk-1", 1, "a", 9.0, 9.01)
        self.assertEqual(self.word(stage), "failed")

    def test_a_number_given_twice_is_a_lost_write(self):
        stage = Stage()
        stage.got[40]["n"] = 39
        self.assertEqual(self.word(stage), "failed")

    def test_an_older_epoch_after_a_newer_one_fails(self):
        stage = Stage()
        stage.found += stamps("os-1", 1, "c", 13, 14)
        self.assertEqual(self.word(stage), "failed")

    def test_a_control_that_shows_no_overlap_proves_nothing(self):
        self.assertEqual(self.word(Stage(), wanted=True), "failed")

    def test_a_control_that_shows_it_passes(self):
        stage = Stage()
        stage.found += stamps("tk-1", 1, "a", 5, 9)
        self.assertEqual(self.word(stage, wanted=True), "passed")


class Cases(unittest.TestCase):
    def test_each_case_says_what_must_come_of_it(self):
        for case in CASES.values():
            self.assertTrue(case.claim, case.name)

    def test_the_quick_ones_hold_the_negative_control(self):
        self.assertTrue(any(case.quick and case.overlap_wanted for case in CASES.values()))


class Tail(unittest.TestCase):
    def test_a_torn_line_is_read_once_it_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/x.jsonl"
            tail = records.Tail(path)
            self.assertEqual(tail.more(), [])
            with open(path, "w", encoding="ascii") as f:
                f.write(json.dumps({"n": 1}) + '\n{"n"')
            self.assertEqual(tail.more(), [{"n": 1}])
            with open(path, "a", encoding="ascii") as f:
                f.write(": 2}\n")
            self.assertEqual((tail.more(), tail.more()), ([{"n": 2}], []))
            os.unlink(path)

    def test_a_longer_file_that_took_the_place_of_one_is_read_from_its_beginning(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/x.jsonl"
            tail = records.Tail(path)
            for first, count in ((1, 3), (10, 9)):
                lines = [{"n": n} for n in range(first, first + count)]
                with open(path, "w", encoding="ascii") as f:
                    f.write("".join(json.dumps(line) + "\n" for line in lines))
                self.assertEqual(tail.more(), lines)
                os.unlink(path)


if __name__ == "__main__":
    unittest.main()

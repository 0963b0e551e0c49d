"""The judge's own test: one good run passes, and each way of spoiling it is caught by name."""

import json
import shutil
import tempfile
import unittest

from demo import expected, judge, synthetic
from demo.synthetic import KILLED, MS, Raw


class JudgeCase(unittest.TestCase):
    """Writes a run, judges it."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="antipode-judge-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.raw = Raw()

    def judged(self):
        self.raw.write(self.folder)
        return judge.Judge(self.folder).report()

    def caught(self, text):
        report = self.judged()
        self.assertEqual(report["verdict"], "failed")
        self.assertTrue(any(text in p for p in report["problems"]), report["problems"])
        return report

    def undecidable(self, text):
        report = self.judged()
        self.assertEqual((report["verdict"], report["problems"]), ("invalid", []))
        self.assertTrue(any(text in p for p in report["invalid"]), report["invalid"])


class AGoodRun(JudgeCase):
    """What a report says when all is well."""

    def test_it_passes_with_every_key_that_a_reader_relies_on(self):
        report = self.judged()
        self.assertEqual((report["verdict"], report["problems"], report["invalid"]), ("passed", [], []))
        keys = """api_version lab clock killed_at_ns leader_site declare suspected_ms declared_ms evidence fenced_ms granted_ms
            serving_ms expected acknowledged_writes acknowledged_writes_lost duplicate_answers stamps overlap_samples resync
            failback directions"""
        self.assertLessEqual(set(keys.split()), set(report))
        home = {"automatic", "operator_commands", "gap_ms", "acknowledged_writes_lost"}
        self.assertEqual(set(report["failback"]), home)
        self.assertEqual(set(report["resync"]), {"compared_bytes", "differing_bytes", "copied_bytes", "pause_ms"})
        self.assertEqual(set(report["stamps"]), {"by_epoch", "due"})
        self.assertEqual(set(report["evidence"][0]), {"host", "host_epoch", "kind", "lab", "log_index"})
        self.assertEqual(report["killed_at_ns"], KILLED)
        figures = [report[k] for k in ("suspected_ms", "declared_ms", "fenced_ms", "granted_ms", "serving_ms")]
        self.assertEqual(figures, [360.0, 410.0, 3700.0, 3760.0, 6600.0])
        self.assertEqual(report["expected"]["outside"], [])

    def test_the_exit_status_tells_passed_failed_and_unreadable_apart(self):
        self.raw.write(self.folder)
        self.assertEqual(judge.main([self.folder]), 0)
        with open(f"{self.folder}/report.json", encoding="utf-8") as f:
            self.assertEqual(json.load(f)["verdict"], "passed")
        with open(f"{self.folder}/client.jsonl", "w", encoding="utf-8"):
            pass
        self.assertEqual(judge.main([self.folder]), 2)

    def test_the_protocols_own_example_comes_out_of_the_intervals(self):
        # Issued for a 1 s watchdog, L 3.7 s, 40 ms round trips, on a quiet machine.
        spans = expected.intervals(synthetic.TIMING)
        for name, low, high in (("suspected_ms", 320, 370), ("declared_ms", 360, 420), ("fenced_ms", 3600, 3950)):
            self.assertLessEqual(spans[name][0], low)
            self.assertLessEqual(abs(spans[name][1] - high), 120)


class Writes(JudgeCase):
    """What was answered is on the disks, once."""

    def test_an_acknowledged_write_that_the_last_owner_lost_is_caught(self):
        self.raw.tokyo = self.raw.tokyo[:80] + [(80, "other")] + self.raw.tokyo[81:]
        self.assertEqual(self.caught("acknowledged writes aren't on tokyo's disk")["acknowledged_writes_lost"], 1)

    def test_a_write_lost_in_the_failback_is_counted_there(self):
        self.raw.tokyo = self.raw.tokyo[:100] + [(100, "other")] + self.raw.tokyo[101:]
        self.assertEqual(self.caught("tokyo's disk")["failback"]["acknowledged_writes_lost"], 1)

    def test_a_standby_that_lacks_an_acknowledged_write_is_caught(self):
        self.raw.osaka = self.raw.osaka[:-1]
        self.caught("aren't on osaka's disk")

    def test_one_number_answered_twice_is_two_histories(self):
        answers = [r for r in self.raw.client if "n" in r]
        answers[70]["n"] = answers[20]["n"]
        self.assertEqual(self.caught("answered twice")["duplicate_answers"], 1)

    def test_a_log_with_a_gap_is_caught(self):
        del self.raw.osaka[33]
        self.caught("gaps or repeats")


class NeverTwo(JudgeCase):
    """Two instances at one time, and witnesses too weak to say."""

    def test_a_stamp_of_the_old_instance_inside_the_new_ones_life_is_overlap(self):
        late = dict(next(s for s in self.raw.stamps if s.get("epoch") == 1), t_ns=KILLED + 7000 * MS)
        self.raw.stamps.append(late)
        self.assertGreater(self.caught("lived at one time")["overlap_samples"], 0)

    def test_two_hosts_in_one_epoch_are_caught(self):
        for s in self.raw.stamps:
            if s.get("epoch") == 2 and s["seq"] > 900:
                s["host"] = "tk-1"
        self.caught("epoch 2 was lived by")

    def test_too_few_stamps_make_a_run_invalid_not_passed(self):
        self.raw.stamps = [s for s in self.raw.stamps if s.get("epoch") != 2 or s["seq"] % 4]
        self.undecidable("epoch 2")

    def test_an_observer_that_stalled_at_the_takeover_makes_a_run_invalid(self):
        self.raw.stamps.append({"kind": "stall", "since_ns": KILLED + 6300 * MS, "t_ns": KILLED + 6900 * MS})
        self.undecidable("observer stalled 600 ms")

    def test_a_host_that_stalled_makes_a_run_invalid(self):
        self.raw.chassis["os-1"] = [self.raw.hardware(10, "stalled", ms=412)]
        self.undecidable("host stalled 412 ms")


class TheStory(JudgeCase):
    """Each point of the demonstration's promise."""

    def test_a_leader_elsewhere_than_the_witness_is_caught(self):
        self.raw.run[2]["site"] = "osaka"
        self.caught("not at the witness")

    def test_a_lazy_declaration_is_caught(self):
        for at in self.raw.events:
            self.raw.find(at, "HostLost")["t_boot_ns"] += 2900 * MS
        self.caught("isn't eager")

    def test_a_proof_before_a_lease_can_have_ended_is_caught(self):
        for at in self.raw.events:
            self.raw.find(at, "EvidenceAccepted")["t_boot_ns"] -= 600 * MS
        self.caught("a lease can't have run out")

    def test_a_figure_later_than_its_interval_is_said_and_not_hidden(self):
        for at in self.raw.events:
            self.raw.find(at, "HostLost")["t_boot_ns"] += 400 * MS
        report = self.judged()
        self.assertEqual(report["verdict"], "passed")
        self.assertEqual([o["figure"] for o in report["expected"]["outside"]], ["declared_ms"])

    def test_a_lease_shorter_than_the_protocol_allows_is_caught(self):
        self.raw.timing["lease"] = 3500
        self.caught("shorter than the protocol allows")

    def test_a_grant_without_evidence_is_caught(self):
        self.raw.forget("EvidenceAccepted")
        self.caught("no evidence for tk-1")

    def test_evidence_of_a_lab_that_isnt_marked_as_such_is_caught(self):
        for at in self.raw.events:
            self.raw.find(at, "EvidenceAccepted")["fact"]["EvidenceAccepted"]["lab"] = False
        self.caught("isn't marked as the lab's")

    def test_a_site_that_died_bit_by_bit_is_caught(self):
        self.raw.cluster["hosts"]["tk-2"] = "tokyo"
        self.raw.run[3]["hosts"] = ["tk-1", "tk-2"]
        self.raw.chassis["tk-2"] = [self.raw.hardware(900, "power-off", because="button")]
        self.caught("tk-2 was dark only after 900 ms")

    def test_a_stale_neighbour_entry_at_the_kill_is_caught(self):
        for r in self.raw.client:
            if r["kind"] == "neighbour" and r["t_ns"] < KILLED:
                r["state"] = "stale"
        self.caught("wasn't fresh")

    def test_the_same_mac_at_both_sites_is_caught(self):
        for r in self.raw.client:
            if r["kind"] == "neighbour":
                r["mac"] = synthetic.MACS["tokyo"]
        self.caught("same MAC")

    def test_a_command_during_the_way_home_is_caught(self):
        given = {"kind": "command", "changes": True, "argv": ["failback", "erp"]}
        self.raw.run.append({**given, "t_ns": KILLED + 19000 * MS})
        self.assertFalse(self.caught("commands were given")["failback"]["automatic"])

    def test_an_old_command_that_a_returning_agent_journals_again_isn_t_one_given_now(self):
        self.raw.applied("ng-1", -60000, 7, "Audited", record={"verb": "set-spec"})
        self.raw.applied("tk-1", 19000, 7, "Audited", record={"verb": "set-spec"})
        self.assertEqual(self.judged()["failback"]["operator_commands"], 0)

    def test_a_command_that_only_a_journal_audited_is_caught(self):
        self.raw.applied("os-1", 19000, 59, "Audited", record={"verb": "failback"})
        self.caught("commands were given")

    def test_a_guest_that_stayed_away_is_caught(self):
        self.raw.client = [r for r in self.raw.client if r.get("epoch") != 3]
        self.raw.stamps = [r for r in self.raw.stamps if r.get("epoch") != 3]
        self.caught("didn't go home")

    def test_a_failback_without_resync_figures_is_caught(self):
        self.raw.forget("resync-done")
        self.caught("finished resync")


if __name__ == "__main__":
    unittest.main()

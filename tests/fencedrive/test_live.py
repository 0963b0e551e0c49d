"""The operator's side of fencing and the fence itself, on a real cluster in the lab.

Needs root and a built product. One cluster serves all cases; they run in the order of their names, and the last ones cost
a host its power.
"""

import json
import os
import shutil
import tempfile
import unittest

from fencedrive.bench import SECRET, FencedCluster
from lab import spec

PREFIX = f"fd{os.getpid() % 100000}"
HOME, AWAY, WITNESS = "tk-1", "os-1", "ng-1"


class Fencing(unittest.TestCase):
    """One cluster whose group is taken over by a positive fence only: its lease is no evidence."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="antipode-fencing-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        options = spec.Options(accept=["powered-off"], failback="manual", declare="auto", watchdog_worst="3.3s")
        cls.cluster = FencedCluster(PREFIX, cls.folder, options)
        cls.addClassCleanup(cls.cluster.down)
        cls.cluster.up()
        cls.cluster.wait_ready()

    def fencing(self, host=WITNESS):
        """`fence status` of a host."""
        return self.cluster.document(host, "fence", "status")

    def line(self, name, host=WITNESS):
        """A host's line of it."""
        return next(line for line in self.fencing(host)["hosts"] if line["name"] == name)

    def test_1_what_could_be_proven_is_read_and_shown(self):
        for host in (AWAY, WITNESS):
            tested = self.cluster.document(host, "fence", "test", "--all", limit=60)
            shown = {t["device"]: (t["shows"], t["identity"]) for t in tested["tested"] if not t["waits"]}
            wanted = {f"panel-{h}": ("on", f"serial {self.cluster.chassis[h].name}") for h in self.cluster.fenced()}
            self.assertEqual(shown, wanted)
        ready = {(level["host"], level["level"]): level["ready"] for level in self.fencing()["levels"]}
        # The panels are level 1; "self" is level 2, or the witness' only one: nothing that a device could prove.
        proven = {(HOME, 1): True, (HOME, 2): False, (AWAY, 1): True, (AWAY, 2): False, (WITNESS, 1): False}
        self.assertEqual(ready, proven)
        # Read well, quick, and its owner said how quick: the loss would be declared without waiting for the lease.
        leader = self.cluster.leader()[0]
        self.cluster.wait_for(lambda: self.line(HOME, leader)["declares"] == "eager", "an eager declaration of tk-1")
        codes = {attention["code"] for attention in self.fencing()["attention"]}
        self.assertIn("lab-device", codes)

    def test_2_a_dry_run_shows_levels_and_commands_and_does_nothing(self):
        document = self.cluster.document(WITNESS, "fence", "run", "host", HOME, "--dry-run")
        level = document["hosts"][0]["levels"][0]
        self.assertEqual((level["would_prove"], level["calls"][0]["device"]), ("powered-off", f"panel-{HOME}"))
        self.assertIn("fence-panel", level["calls"][0]["shown"][0])
        self.assertEqual(document["decision"]["declares_lost"], [self.line(HOME)["name"] + "@" + self.line(HOME)["host_epoch"]])
        self.assertEqual(self.line(HOME)["state"], "admitted")

    def test_3_an_override_of_a_live_host_is_refused_by_its_heartbeat(self):
        words = ("fence", "override", "host", HOME, "--reason", "it is off, I looked")
        status, _, err = self.cluster.ask(WITNESS, *words)
        self.assertEqual(status, 2, err)
        self.assertIn("--confirm", err)
        status, _, err = self.cluster.ask(WITNESS, *words, "--confirm", AWAY)
        self.assertEqual(status, 2, err)
        status, out, err = self.cluster.ask(WITNESS, *words, "--confirm", HOME)
        self.assertEqual((status, out), (3, ""), err)
        self.assertIn("a heartbeat heard by", err)
        self.assertRegex(err, r"\d+\.\d s ago")
        status, out, _ = self.cluster.ask(WITNESS, *words, "--confirm", HOME, "-o", "json")
        self.assertEqual((status, json.loads(out)["error"]["code"]), (3, "contrary-fresh"))
        self.assertEqual(self.line(HOME)["state"], "admitted")
        # A refusal is answered at once and put into the chain behind the answer.
        is_told = lambda: "a heartbeat heard by" in self.cluster.ask(WITNESS, "history", "-o", "json")[1]
        self.cluster.wait_for(is_told, "the audit chain has what was shown")

    def test_4_two_sides_of_a_partition_never_shoot_each_other(self):
        self.cluster.net.isolate("tokyo", nets=("wan",))
        away = lambda: (self.cluster.group() or {}).get("host") == AWAY and self.cluster.group().get("state") == "running"
        self.cluster.wait_for(away, "the group runs at osaka", 180)
        self.assertIn("powered-off", self.line(HOME)["evidence"])
        self.assertEqual(self.cluster.chassis[HOME].order("status")["power"], "off")
        for host in (AWAY, WITNESS):
            self.assertEqual(self.cluster.chassis[host].order("status")["power"], "on")
            self.assertTrue(all(target == HOME for target, _ in self.cluster.attempts(host)), self.cluster.dump())
        self.assertEqual(self.cluster.attempts(HOME), [], "the minority called a device")
        self.assertTrue(self.cluster.attempts(AWAY) or self.cluster.attempts(WITNESS))

    def test_5_the_record_tells_it_and_the_host_comes_back(self):
        executor = AWAY if self.cluster.attempts(AWAY) else WITNESS
        records = self.cluster.document(executor, "fence", "history")["records"]
        events = [record["event"] for record in records if (record["task"] or {}).get("target") == HOME]
        for event in ("ordered", "calling", "concluded", "finished"):
            self.assertIn(event, events)
        self.cluster.net.heal()
        self.cluster.power_on(HOME)
        self.cluster.wait_for(lambda: self.line(HOME)["state"] == "admitted", "tk-1 is admitted again", 120)
        self.assertEqual(self.line(HOME)["tasks"], [])

    def test_6_no_secret_is_anywhere_but_in_its_file(self):
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                if name == "root.raw" or folder.endswith("/secrets"):
                    continue
                with open(path, "rb") as f:
                    if SECRET.encode() in f.read():
                        found.append(path)
        self.assertEqual(found, [])
        for words in (("fence", "status"), ("fence", "history"), ("fence", "run", "host", AWAY, "--dry-run")):
            self.assertNotIn(SECRET, json.dumps(self.cluster.document(WITNESS, *words)))


if __name__ == "__main__":
    unittest.main()

"""The override where two people are needed (F4): real agents, real certificates, a real takeover that waits for both.

Needs root and a built product. One cluster serves all cases, in the order of their names: a live target, a dead one that
nothing can prove, a replay, the target's next incarnation, a change of leader.
"""

import json
import os
import re
import shutil
import tempfile
import unittest

from fencedrive.people import FIRST_NAME, SECOND_NAME, PeopleCluster
from lab import spec

PREFIX = f"fe{os.getpid() % 100000}"
HOME, AWAY, WITNESS = "tk-1", "os-1", "ng-1"
REASON = ("--reason", "it is off, I looked")
VOUCH = ("fence", "override", "host", HOME, *REASON, "--confirm", HOME)
#: The same as VOUCH, as bytes.
BODY = {
    "scope": {"kind": "host", "name": HOME}, "act": {"act": "override", "at_once": False}, "reason": REASON[1], "confirm": HOME,
    "dry_run": False,
}  # fmt: skip


class TwoPeople(unittest.TestCase):
    """A cluster with `approvals = 2`, whose group accepts a positive proof of power only."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="antipode-people-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        options = spec.Options(accept=["powered-off"], failback="manual", declare="auto", watchdog_worst="3.3s")
        cls.cluster = PeopleCluster(PREFIX, cls.folder, options)
        cls.addClassCleanup(cls.cluster.down)
        cls.cluster.up()
        cls.cluster.wait_ready()
        cls.used = None

    def assert_refused(self, said, code, *words):
        """A refusal by a safety gate: exit 3, this code, these words."""
        status, out, err = said
        document = json.loads(out or "{}").get("error", {})
        self.assertEqual((status, document.get("code")), (3, code), out + err)
        for word in words:
            self.assertRegex(document["text"], word)
        return document

    def vouch(self, name=None):
        """VOUCH, by a person from afar or over the local socket."""
        words = (*VOUCH, "-o", "json")
        return self.cluster.ask_as(name, WITNESS, *words) if name else self.cluster.ask(WITNESS, *words)

    def approve(self, index, name=None):
        """Agrees with an override."""
        words = ("approve", "override", str(index), "--reason", "I looked, too", "-o", "json")
        return self.cluster.ask_as(name, WITNESS, *words) if name else self.cluster.ask(WITNESS, *words)

    def audit(self):
        """The audit chain's records; it is intact."""
        document = self.cluster.document(WITNESS, "audit", "verify")
        self.assertEqual(document["verdict"], "intact", document["findings"])
        return self.cluster.document(WITNESS, "audit", "show")["records"]

    def line(self):
        """The target's line of `fence status`."""
        hosts = self.cluster.document(WITNESS, "fence", "status")["hosts"]
        return next(line for line in hosts if line["name"] == HOME)

    def pending(self):
        """Overrides that wait."""
        return self.cluster.document(WITNESS, "fence", "status")["overrides"]

    def runs_at(self, host):
        """Whether the group runs there."""
        group = self.cluster.group()
        return group.get("host") == host and group.get("state") == "running"

    def lose_unproven(self):
        """Cuts the target's power so that nothing can prove it, and waits until no sign of life is fresh."""
        self.cluster.unplug_panel(HOME)
        self.cluster.power_off(HOME)
        self.cluster.wait_for(lambda: self.line()["state"] == "lost", "tk-1 is declared lost", 60)
        # Its last heartbeat is young still: it refuses, and the refusal says whose ears and how long ago.
        said = self.assert_refused(self.vouch("ann"), "contrary-fresh", "a heartbeat heard by|says .on.", r"\d+\.\d s ago")
        age = float(re.search(r"(\d+\.\d) s ago", said["text"]).group(1))
        self.assertLess(age, self.cluster.contrary_fresh_s)

        def is_silent():
            dry = self.cluster.ask_as("ann", WITNESS, *VOUCH[:4], "--dry-run", "-o", "json")[1]
            return json.loads(dry)["decision"]["refused"] is None

        self.cluster.wait_for(is_silent, "no sign of life is fresh", 90)

    def test_1_a_live_target_is_refused_whoever_asks(self):
        self.assert_refused(self.vouch("ann"), "contrary-fresh", "a heartbeat heard by", r"\d+\.\d s ago")
        self.assert_refused(self.vouch(), "contrary-fresh", "a heartbeat heard by")
        # An operator may look, and not vouch.
        self.assert_refused(self.vouch("vera"), "role-too-weak")
        dry = json.loads(self.cluster.ask_as("vera", WITNESS, *VOUCH[:4], "--dry-run", "-o", "json")[1])
        against = {(sign["host"], sign["what"].split(" ")[0]) for sign in dry["decision"]["evidence_against"]}
        self.assertIn((HOME, "a"), against, dry)
        self.assertIn((HOME, f"panel-{HOME}"), against, "the device that reads on isn't a sign")
        self.assertEqual(self.line()["state"], "admitted")
        refused = lambda: [r for r in self.audit() if r["action"] == "fence-override-refused" and r["who"] == "ann"]
        last = self.cluster.wait_for(refused, "the refused attempt is in the audit chain")[-1]
        self.assertIn("a heartbeat heard by", last["shown"])
        self.assertIn("refused:", last["shown"])
        self.assertTrue(last["key"].startswith("cert:"), last)

    def test_2_a_dead_target_takes_two_keys(self):
        self.lose_unproven()
        self.assert_refused(self.vouch(), "local-cannot-pair")
        status, out, err = self.vouch("ann")
        self.assertEqual((status, json.loads(out)["error"]["code"]), (4, "awaits-approval"), out + err)
        [pending] = self.pending()
        index = type(self).used = pending["index"]
        self.assertEqual((pending["needs"], len(pending["agreed"])), (2, 1))
        # One person isn't two: not by asking again, not under another name, not by the local socket.
        for name in (FIRST_NAME, SECOND_NAME):
            self.assert_refused(self.approve(index, name), "same-person")
        self.assert_refused(self.approve(index), "local-cannot-pair")
        self.assert_refused(self.approve(index, "vera"), "role-too-weak")
        self.assertFalse(self.runs_at(AWAY), self.cluster.dump())
        self.assertEqual(self.line()["evidence"], [])
        status, out, err = self.approve(index, "bob")
        self.assertEqual(status, 0, out + err)
        self.cluster.wait_for(lambda: self.runs_at(AWAY), "the group runs at osaka", 180)
        self.assertIn("attested", self.line()["evidence"])

    def test_3_the_audit_chain_has_who_and_what_was_shown_to_each(self):
        records = self.audit()
        asked = next(r for r in records if r["who"] == "ann" and r["action"] == "override")
        agreed = next(r for r in records if r["who"] == "bob" and r["action"] == "approve")
        named = self.line()["host_epoch"]
        for record in (asked, agreed):
            self.assertIn(f"{HOME}@{named}", record["shown"])
            self.assertIn("for it:", record["shown"])
            self.assertIn("against it:", record["shown"])
        self.assertNotEqual(asked["key"], agreed["key"])
        self.assertIn("is declared lost", asked["shown"])

    def test_4_what_was_said_once_can_not_be_said_again(self):
        status, document = self.cluster.post_as("ann", WITNESS, "/v1/fence/order", BODY)
        self.assertEqual(document["error"]["code"], "nothing-missing", (status, document))
        self.replay_the_agreement()
        self.assertEqual(self.pending(), [])

    def replay_the_agreement(self):
        """Bob's approval, byte for byte."""
        body = {"order": {"order": "approve", "matter": {"kind": "override", "id": self.used}}, "reason": "I looked, too"}
        status, document = self.cluster.post_as("bob", WITNESS, "/v1/order", body)
        self.assertEqual(document["error"]["code"], "subject-unknown", (status, document))

    def test_5_the_next_incarnation_is_not_vouched_for(self):
        before = self.line()["host_epoch"]
        self.cluster.plug_panel(HOME)
        self.cluster.power_on(HOME)
        self.cluster.wait_for(lambda: self.line()["state"] == "admitted", "tk-1 is admitted again", 120)
        self.assertGreater(self.line()["host_epoch"], before)
        self.cluster.wait_for(lambda: self.runs_at(AWAY) and self.cluster.is_in_sync(), "in sync at osaka", 180)

        def ordered_home():
            return self.cluster.ask(WITNESS, "failback", spec.GROUP, "--reason", "home")[0] in (0, 4)

        self.cluster.wait_for(ordered_home, "the way home is ordered", 90)
        self.cluster.wait_for(lambda: self.runs_at(HOME) and self.cluster.is_in_sync(), "in sync at tokyo", 180)
        self.lose_unproven()
        self.assertEqual(self.line()["evidence"], [])
        self.replay_the_agreement()
        # And the request is a new one that waits for two people, as the first did.
        status, document = self.cluster.post_as("ann", WITNESS, "/v1/fence/order", BODY)
        self.assertEqual(document["error"]["code"], "awaits-approval", (status, document))
        [pending] = self.pending()
        self.assertNotEqual(pending["index"], self.used)
        self.assertFalse(self.runs_at(AWAY), self.cluster.dump())

    def test_6_a_new_leader_makes_what_waits_void(self):
        [pending] = self.pending()
        self.cluster.cli(WITNESS, "quorum", "transfer", AWAY, changes=True)
        self.cluster.wait_for(lambda: self.pending() == [], "what waited is void", 60)
        self.assert_refused(self.approve(pending["index"], "bob"), "subject-unknown")
        self.assertFalse(self.runs_at(AWAY), self.cluster.dump())
        self.assertEqual(self.line()["evidence"], [])


if __name__ == "__main__":
    unittest.main()

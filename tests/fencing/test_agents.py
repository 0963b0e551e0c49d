"""`fence_agent`: every installed agent's metadata, fence_dummy, and why fence_sbd gives no evidence."""

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

from fencing import parts
from fencing.case import FencingCase, read, write

#: Debian's package has 86; fewer would mean that most of them went missing.
AGENTS_MIN = 80


class Metadata(FencingCase):
    """What agents say of themselves."""

    def test_the_metadata_of_every_installed_agent_is_understood(self):
        agents = parts.agents()
        self.assertGreaterEqual(len(agents), AGENTS_MIN)
        with ThreadPoolExecutor(3) as pool:
            problems = dict(zip(agents, pool.map(self.compare, agents)))
        # A leftover that says itself that it isn't one any more; so do we, with its words.
        self.assertIn("no longer required", problems.pop("/usr/sbin/fence_ack_manual", "no longer required"))
        self.assertEqual({agent: problem for agent, problem in problems.items() if problem}, {})

    def compare(self, agent):
        """Holds our reading of an agent's metadata against that of an XML parser of Python's; what differs."""
        ours = parts.run([self.program, "metadata", agent])
        if ours.returncode != 0:
            return ours.stderr
        # Into a file: the agents die noisily when their reader is done before them.
        with open(f"{self.folder}/{os.path.basename(agent)}.xml", "w+", encoding="utf-8") as f:
            done = parts.run([agent, "-o", "metadata"], capture_output=False, stdout=f, stderr=subprocess.DEVNULL)
            f.seek(0)
            text = f.read()
        if done.returncode != 0:
            return f"its own metadata ended with {done.returncode}"
        xml = ET.fromstring(text[text.index("<") :])
        ours = json.loads(ours.stdout)
        theirs = {one.get("name"): one.get("required", "0") == "1" for one in xml.find("parameters")}
        seen = {name: one["required"] for name, one in ours["parameters"].items()}
        if seen != theirs:
            return f"parameters differ: {seen} and {theirs}"
        actions = sorted({one.get("name") for one in xml.find("actions")})
        found = sorted({one["name"] for one in ours["actions"]})
        return "" if found == actions else f"actions differ: {found} and {actions}"


class Dummy(FencingCase):
    """fence_dummy: a file that plays a machine."""

    def device(self, options):
        return f'name = "dummy"\nkind = "fence_agent"\nagent = "fence_dummy"\nwired = "the test"\noptions = {options}'

    def test_a_file_that_plays_a_machine_is_proven_off_and_marked_as_a_laboratory(self):
        status = write(f"{self.folder}/status", "on")
        outcome = self.fence(self.config("", self.device(f'{{ type = "file", status_file = "{status}" }}')))
        self.assert_proven(outcome)
        self.assertEqual(read(status).strip(), "off")
        self.assertTrue(outcome.evidence["lab"], "a file must not pass for a machine in production")

    def test_an_agent_that_fails_proves_nothing(self):
        outcome = self.fence(self.config("", self.device('{ type = "fail" }')), allowed=10)
        self.assertIsNone(outcome.evidence, outcome.text)

    def test_an_option_that_the_agent_does_not_have_is_refused_before_anything_is_switched(self):
        status = write(f"{self.folder}/status", "on")
        device = self.device(f'{{ type = "file", status_file = "{status}", statusfile = "x" }}')
        outcome = self.fence(self.config("", device), allowed=30)
        self.assert_unproven(outcome, "statusfile")
        self.assertEqual(read(status), "on")

    def test_fence_sbd_is_refused_as_evidence_with_the_reason(self):
        device = 'name = "sbd"\nkind = "fence_agent"\nagent = "fence_sbd"\nwired = "the test"\n'
        config = self.config("", device + 'options = { devices = "/dev/loop0", plug = "tk-p1" }')
        done = parts.run([self.program, "check", config])
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("its status is the message in the slot", done.stderr)

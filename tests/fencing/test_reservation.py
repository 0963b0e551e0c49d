"""`reservation` over SG_IO inside two initiator guests, against LIO and tgt: what the fenced host sees of it.

sg_persist is the witness of keys and reservations; of the fenced host's writes it is that host itself, by fsync.
"""

import shutil
import tempfile
import unittest

from fencing import parts
from fencing.arrays import Arrays
from fencing.case import PREFIX, Outcome, end_processes, order, seconds, wait_until
from lab import procs

OWNER, CLAIMANT, LATER = (f"0x0007{host:04x}01{epoch:06x}" for host, epoch in ((10, 4), (20, 5), (20, 6)))
TYPE = "Write Exclusive, registrants only"


def short(key):
    """A key as sg_persist writes it."""
    return hex(int(key, 16))


class Reservation(unittest.TestCase):
    """Host 10 holds, host 20 claims."""

    @classmethod
    def setUpClass(cls):
        program = parts.fence()
        folder = tempfile.mkdtemp(prefix="antipode-arrays-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.addClassCleanup(end_processes)

        def begin(name, argv, env):
            return procs.start(PREFIX, name, argv, f"{folder}/{name}.log", env=env)

        cls.arrays = Arrays(folder, program, begin, cls.addClassCleanup)
        cls.owner, cls.claimant = cls.arrays.hosts

    def config(self, host, *units, drain="1s", settle="1s", wwid=None):
        """A configuration of our kind on a host's paths to units."""
        tables = ""
        for unit in units:
            paths = ", ".join(f'"{path}"' for path in host.paths(unit))
            tables += f'[[device.volumes]]\nname = "{unit}"\nwwid = "{wwid or unit}"\npaths = [{paths}]\n'
        config = '[[host]]\nname = "tk-p1"\nfencing = [["pr"]]\n[[device]]\nname = "pr"\nkind = "reservation"\n'
        return f'{config}drain = "{drain}"\nsettle = "{settle}"\noff_again = "2s"\n{tables}'

    def claim(self, host, own, victims, *units, allowed=60, **more):
        """Our kind at work on a host, as the claimant `own` of units, excluding `victims`."""
        host.must(f"cat > /tmp/fencing.toml <<'END'\n{self.config(host, *units, **more)}END")
        told = order("tk-p1", allowed, claims={unit: (own, victims) for unit in units}, checked=True)
        return Outcome(*host.sh(f"exec fence run /tmp/fencing.toml tk-p1 '{told}'", limit=240), "")

    def assert_excluded(self, outcome, *units):
        self.assertIsNotNone(outcome.evidence, outcome.text)
        self.assertEqual(outcome.evidence["kind"], "storage-excluded", outcome.text)
        self.assertEqual(outcome.evidence["scope"], {"scope": "volumes", "volumes": sorted(units)})

    def test_on_lio_the_owner_is_cut_off_over_every_path_and_unit(self):
        owner, claimant = self.owner, self.claimant
        self.assert_excluded(self.claim(owner, OWNER, [], "data", "log"), "data", "log")
        self.assertEqual(owner.keys("data"), [short(OWNER)] * 2, "one registration a path")
        self.assertEqual(owner.keys("log"), [short(OWNER)])
        self.assertEqual(owner.reservation("data"), (short(OWNER), TYPE))
        # The owner's workload: a file system, and a raw unit. Both are durable while it owns them.
        owner.must(f"mount -t ext4 {owner.paths('data')[0]} /data")
        log = owner.paths("log")[0]
        self.assertEqual((owner.write("/data/file"), owner.write(log)), (0, 0))

        outcome = self.claim(claimant, CLAIMANT, [OWNER], "data", "log")
        self.assert_excluded(outcome, "data", "log")
        self.assertEqual(claimant.keys("data"), [short(CLAIMANT)] * 2)
        self.assertEqual(claimant.reservation("log"), (short(CLAIMANT), TYPE))
        self.assertNotEqual(owner.write("/data/file"), 0, "a fsynced write passed after the exclusion")
        self.assertNotEqual(owner.write(log), 0, "a fsynced write passed after the exclusion")
        self.assertRegex(owner.must("dmesg"), "critical nexus error|reservation conflict", "the target refused it")
        self.assertEqual(claimant.write(claimant.paths("log")[0]), 0, "the claimant can't write")

        # Whoever comes late with an older epoch takes its registration back.
        late = self.claim(owner, OWNER, [], "log", allowed=20)
        self.assertIsNone(late.evidence, late.text)
        self.assertTrue(any("larger epoch" in reason for reason in late.reasons), late.reasons)
        self.assertEqual(claimant.keys("log"), [short(CLAIMANT)])
        self.assertNotEqual(owner.write(log), 0)

    def test_on_tgt_which_cannot_abort_the_drain_time_is_waited_out(self):
        owner, claimant = self.owner, self.claimant
        unit = owner.paths("tgt")[0]
        owner.must(f"sg_persist -o -G -S {OWNER} {unit}")
        owner.must(f"sg_persist -o -R -K {OWNER} -T 5 {unit}")
        self.assertEqual(owner.write(unit), 0)
        outcome = self.claim(claimant, CLAIMANT, [OWNER], "tgt", drain="3s")
        self.assert_excluded(outcome, "tgt")
        accepted, first = outcome.first("accepted"), seconds(outcome.evidence["seen"][0]["first"])
        self.assertGreaterEqual(first - accepted, 2.5, f"the drain time wasn't waited out: {outcome.text}")
        self.assertIn("not aborted", outcome.text)
        self.assertEqual(claimant.keys("tgt"), [short(CLAIMANT)])
        self.assertEqual(claimant.reservation("tgt"), (short(CLAIMANT), TYPE))
        self.assertNotEqual(owner.write(unit), 0, "a fsynced write passed after the exclusion")
        self.assertEqual(claimant.write(claimant.paths("tgt")[0]), 0, "the claimant can't write")

    def test_a_registration_that_was_lost_is_reported_and_never_renewed(self):
        owner, claimant = self.owner, self.claimant
        unit = owner.paths("lost")[0]
        # Somebody clears the unit as soon as the claimant is registered there and holds it.
        ours = short(CLAIMANT)
        clear = f"until sg_persist -i -r {unit} | grep -q {ours}; do :; done\n"
        clear += f"sg_persist -o -G -S 0x9 {unit} && sg_persist -o -C -K 0x9 {unit}"
        owner.must(f"cat > /tmp/clear <<'END'\n{clear}\nEND")
        owner.must("(sh /tmp/clear; echo cleared) > /tmp/cleared 2>&1 < /dev/null &")
        outcome = self.claim(claimant, CLAIMANT, [], "lost", settle="8s", allowed=25)
        self.assertIn("cleared", owner.must("cat /tmp/cleared"))
        self.assertIsNone(outcome.evidence, outcome.text)
        self.assertIn("was lost", outcome.text)
        self.assertIn("isn't renewed", " ".join(outcome.reasons))
        self.assertEqual((claimant.keys("lost"), claimant.reservation("lost")), ([], None))

    def test_a_claimant_that_logged_in_again_at_tgt_reports_its_loss_and_does_not_register_again(self):
        claimant = self.claimant
        claimant.must(f"cat > /tmp/again.toml <<'END'\n{self.config(claimant, 'again')}END\nmkfifo /tmp/orders")
        claimant.must("sleep 100000 > /tmp/orders < /dev/null 2>&1 &")
        claimant.must("fence serve /tmp/again.toml < /tmp/orders > /tmp/again 2>&1 &")

        def outcome(index):
            told = order("tk-p1", 15, claims={"again": (CLAIMANT, [])}, checked=True, index=index)
            claimant.must(f"echo '{told}' > /tmp/orders")
            done = f"test $(grep -c '\"finished\"' /tmp/again) -ge {index} && cat /tmp/again"
            lines = wait_until(lambda: claimant.sh(done)[1], "the order is finished").splitlines()
            ends = [n for n, line in enumerate(lines) if '"finished"' in line]
            begins = ends[index - 2] + 1 if index > 1 else 0
            return Outcome(0, "\n".join(lines[begins:]), "")

        self.assert_excluded(outcome(1), "again")
        self.assertEqual(self.arrays.end_sessions(claimant), 2)
        # tgt keeps the old session's key in its list, though nobody holds it any more.
        path = claimant.paths("again")[0]
        wait_until(lambda: claimant.sh(f"sg_persist -i -k {path}")[0] == 0, "it is logged in again")
        self.assertEqual(claimant.keys("again"), [short(CLAIMANT)])
        self.assertNotEqual(claimant.write(path), 0, "the new session isn't registered")
        lost = outcome(2)
        self.assertIsNone(lost.evidence, lost.text)
        self.assertIn("was lost; it is never renewed", lost.text)
        self.assertEqual(claimant.keys("again"), [short(CLAIMANT)], "it was registered again")

    def test_a_path_to_another_unit_is_found_out_before_anything_is_registered(self):
        before = self.claimant.keys("log")
        outcome = self.claim(self.claimant, LATER, [], "log", wwid="data", allowed=20)
        self.assertIsNone(outcome.evidence, outcome.text)
        self.assertTrue(any("another machine" in reason for reason in outcome.reasons), outcome.reasons)
        self.assertEqual(self.claimant.keys("log"), before)

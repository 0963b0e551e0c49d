"""`ipmi` and `fence_ipmilan` against OpenIPMI's BMC before a QEMU machine; ipmitool and the process tell the truth."""

from fencing import parts
from fencing.case import OFF, FencingCase, read, write
from fencing.machine import UUID, Machine


class Ipmi(FencingCase):
    """One machine, one BMC."""

    def setUp(self):
        super().setUp()
        self.machine = Machine(self)

    def test_off_is_proven_and_the_machine_is_gone(self):
        self.assertTrue(self.machine.is_on())
        outcome = self.fence(self.config(f'uuid = "{UUID}"', self.machine.device()))
        self.assert_proven(outcome)
        self.assertFalse(self.machine.is_on())
        self.assertEqual(outcome.evidence["seen"][0]["basis"], {"reported": f"UUID {UUID}"})
        self.assertFalse(outcome.evidence["lab"])
        # Once it is off, it is proven by reading alone.
        before = self.machine.asked()
        self.assert_proven(self.fence(self.config(f'uuid = "{UUID}"', self.machine.device())))
        self.assertEqual(self.machine.asked(), before)

    def test_an_off_that_was_taken_and_had_no_effect_proves_nothing(self):
        self.machine.be_stuck()
        outcome = self.fence(self.config(f'uuid = "{UUID}"', self.machine.device('off_again = "2s"')), allowed=8)
        self.assert_unproven(outcome, "still reads: on")
        self.assertGreaterEqual(len(self.machine.asked()), 2, "it was told again")
        self.assertTrue(self.machine.is_on())

    def test_another_machine_is_never_told_anything(self):
        other = UUID.replace("a1", "b2", 1)
        outcome = self.fence(self.config(f'uuid = "{other}"', self.machine.device()))
        self.assert_unproven(outcome, "another machine")
        self.assertEqual(self.machine.asked(), [])
        self.assertTrue(self.machine.is_on())

    def test_a_bmc_that_is_gone_is_unknown_and_never_dead(self):
        self.machine.lose_bmc()
        outcome = self.fence(self.config(f'uuid = "{UUID}"', self.machine.device()), allowed=10)
        self.assertIsNone(outcome.evidence, outcome.text)
        # Refused or silent: whichever the last question met before the order's time was over.
        self.assertRegex(" ".join(outcome.reasons), "can't be reached|no answer within")
        self.assertLessEqual(outcome.at, 15)
        self.assertIsNone(self.machine.process.poll(), "the machine runs")

    def test_a_site_all_of_whose_bmcs_are_gone_is_told_as_one_thing_that_proves_nothing(self):
        other = Machine(self, "other")
        theirs = other.device('site = "tokyo"').replace('name = "bmc"', 'name = "bmc-2"')
        config = self.config(f'uuid = "{UUID}"', self.machine.device('site = "tokyo"'))
        host = f'[[host]]\nname = "tk-p2"\nuuid = "{UUID}"\nfencing = [["bmc-2"]]\n'
        write(config, read(config) + f"{host}[[device]]\n{theirs}\n")
        self.assertNotIn("silent", parts.must([self.program, "test", config]))
        self.machine.lose_bmc()
        other.lose_bmc()
        outcome = self.fence(config, allowed=12)
        self.assertIsNone(outcome.evidence, outcome.text)
        self.assertIn("all 2 fencing devices of site tokyo are silent", outcome.text)
        self.assertIn("this proves nothing about its hosts", outcome.text)
        self.assertEqual([m.process.poll() for m in (self.machine, other)], [None, None], "both machines run")

    def test_a_wrong_password_is_told_from_silence_and_not_tried_again(self):
        write(self.secret, "not-that-one", 0o600)
        outcome = self.fence(self.config(f'uuid = "{UUID}"', self.machine.device()), allowed=60)
        self.assert_unproven(outcome, "refuses the login")
        self.assertEqual(sum(what == "troubled" for _, what, _ in outcome.notes()), 1, outcome.text)
        self.assertTrue(self.machine.is_on())

    def test_fence_ipmilan_proves_the_same_and_is_told_off_only(self):
        outcome = self.fence(self.config("", self.machine.agent()))
        self.assert_proven(outcome)
        self.assertFalse(self.machine.is_on())
        self.assertEqual(outcome.evidence["seen"][0]["basis"], {"wired": "the test"})
        self.assertEqual(set(self.machine.asked()), {"set power 0"})
        self.assertLess(outcome.first("accepted"), outcome.first("read", OFF), "its exit code isn't its state")

    def test_fence_ipmilan_that_reports_failure_proves_nothing(self):
        self.machine.be_stuck()
        config = self.config("", self.machine.agent())
        outcome = self.fence(config, allowed=10)
        self.assertIsNone(outcome.evidence, outcome.text)
        self.assertTrue(self.machine.is_on())

"""`libvirt` against a real libvirtd: a running, a frozen, an absent domain; virsh and the process tell the truth."""

import os
import signal
import time

from fencing.case import OFF, FencingCase
from fencing.hypervisor import UUID, Hypervisor


class Libvirt(FencingCase):
    """One hypervisor."""

    def setUp(self):
        super().setUp()
        self.hypervisor = Hypervisor(self)

    def test_a_running_domain_is_destroyed_and_proven_off(self):
        uuid = self.hypervisor.domain("app1")
        pid = self.hypervisor.pid("app1")
        outcome = self.fence(self.config(f'uuid = "{uuid}"', self.hypervisor.device("app1")))
        self.assert_proven(outcome)
        self.assertEqual(self.hypervisor.state("app1"), "shut off")
        self.assertFalse(os.path.exists(f"/proc/{pid}"), "its process lives")
        # Once it is off, it is proven by reading alone.
        again = self.fence(self.config(f'uuid = "{uuid}"', self.hypervisor.device("app1")))
        self.assert_proven(again)
        self.assertNotIn("accepted", [what for _, what, _ in again.notes()])

    def test_a_frozen_domain_says_running_and_is_waited_for(self):
        uuid = self.hypervisor.domain("app1")
        pid = self.hypervisor.pid("app1")
        os.kill(pid, signal.SIGSTOP)
        self.assertEqual(self.hypervisor.state("app1"), "running")
        outcome = self.fence(self.config(f'uuid = "{uuid}"', self.hypervisor.device("app1")))
        self.assert_proven(outcome)
        # libvirtd asks it politely for ten seconds before it kills it.
        self.assertGreaterEqual(outcome.first("read", OFF) - outcome.first("read", {"power": "on"}), 10.0)
        self.assertEqual(self.hypervisor.state("app1"), "shut off")
        self.assertFalse(os.path.exists(f"/proc/{pid}"), "its process lives")

    def test_a_domain_that_libvirtd_does_not_know_is_unknown_and_never_off(self):
        config = self.config(f'uuid = "{UUID.format(9)}"', self.hypervisor.device("gone"))
        began = time.monotonic()
        outcome = self.fence(config, allowed=8)
        self.assert_unproven(outcome, "doesn't know the domain")
        self.assertLess(time.monotonic() - began, 60)

    def test_another_domain_and_another_hypervisor_are_not_taken_for_the_right_ones(self):
        self.hypervisor.domain("app1")
        wrong_host = self.config(f'uuid = "{UUID.format(9)}"', self.hypervisor.device("app1"))
        self.assert_unproven(self.fence(wrong_host, allowed=20), "another machine")
        device = self.hypervisor.device("app1").replace("9b8e2c55", "00112233")
        wrong_hypervisor = self.config(f'uuid = "{UUID.format(1)}"', device)
        self.assert_unproven(self.fence(wrong_hypervisor, allowed=20), "another machine")
        self.assertEqual(self.hypervisor.state("app1"), "running")

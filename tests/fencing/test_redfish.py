"""`redfish` and `fence_redfish` against sushy-emulator; curl, virsh and the process tell the truth."""

import os

from fencing.bmc import FAKE_UUID, Redfish
from fencing.case import OFF, FencingCase
from fencing.hypervisor import UUID, Hypervisor

ON = {"power": "on"}


class OverAHypervisor(FencingCase):
    """Its systems are libvirt's domains."""

    def setUp(self):
        super().setUp()
        self.hypervisor = Hypervisor(self)
        self.uuid = self.hypervisor.domain("app1")
        self.redfish = Redfish(self, self.hypervisor.uri)

    def test_off_is_proven_and_the_machine_is_gone(self):
        pid = self.hypervisor.pid("app1")
        self.assertEqual(self.redfish.power(self.uuid), "On")
        outcome = self.fence(self.config(f'uuid = "{self.uuid}"', self.redfish.device(self.uuid)))
        self.assert_proven(outcome)
        self.assertEqual(outcome.evidence["seen"][0]["basis"], {"reported": f"UUID {self.uuid}"})
        self.assertEqual((self.redfish.power(self.uuid), self.hypervisor.state("app1")), ("Off", "shut off"))
        self.assertFalse(os.path.exists(f"/proc/{pid}"), "its process lives")

    def test_fence_redfish_proves_the_same(self):
        outcome = self.fence(self.config("", self.redfish.agent(self.uuid)))
        self.assert_proven(outcome)
        self.assertEqual((self.redfish.power(self.uuid), self.hypervisor.state("app1")), ("Off", "shut off"))

    def test_a_system_of_another_machine_is_never_told_anything(self):
        other = self.hypervisor.domain("app2", running=False)
        config = self.config(f'uuid = "{UUID.format(9)}"', self.redfish.device(self.uuid))
        self.assert_unproven(self.fence(config, allowed=30), "another machine")
        # Another domain that is off doesn't speak for this one.
        config = self.config(f'uuid = "{self.uuid}"', self.redfish.device(other))
        self.assert_unproven(self.fence(config, allowed=30), "another machine")
        self.assertEqual(self.redfish.power(self.uuid), "On")

    def test_a_certificate_that_is_not_the_pinned_one_ends_it(self):
        device = self.redfish.device(self.uuid)
        pin = device.partition("sha256:")[2][:64]
        config = self.config(f'uuid = "{self.uuid}"', device.replace(pin, "0" * 64))
        self.assert_unproven(self.fence(config, allowed=30), "another certificate")
        self.assertEqual(self.redfish.power(self.uuid), "On")


class MadeUp(FencingCase):
    """The emulator's fake driver answers 204 and lets the power change one to eleven seconds later."""

    def test_an_accepted_off_is_not_off_and_the_change_is_waited_for(self):
        redfish = Redfish(self)
        # The change may come with the answer by chance of one in a hundred; three times in a row it doesn't.
        for _ in range(3):
            self.assertEqual(redfish.power(FAKE_UUID), "On")
            outcome = self.fence(self.config(f'uuid = "{FAKE_UUID}"', redfish.device(FAKE_UUID)))
            self.assert_proven(outcome)
            self.assertEqual(redfish.power(FAKE_UUID), "Off")
            accepted = outcome.first("accepted")
            reads = [state for at, what, state in outcome.notes() if what == "read" and at > accepted]
            if ON in reads and reads.index(ON) < reads.index(OFF):
                return
            redfish.switch_on(FAKE_UUID)
        self.fail("power always changed before the first reading")

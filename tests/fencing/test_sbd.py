"""`sbd`: our poison pill on disks that ClusterLabs' sbd made, read by it, and obeyed by its watcher in a guest."""

import os
import re

from fencing import parts
from fencing.case import OFF, FencingCase, wait_until
from fencing.guest import Guest, image


class Disks(FencingCase):
    """Block devices on files."""

    def disk(self, name="disk", allocate=True):
        """A block device on a new file, made for sbd, with a slot for tk-p1."""
        path = f"{self.folder}/{name}"
        with open(path, "wb") as f:
            f.truncate(4 << 20)
        loop = parts.must(["losetup", "--find", "--show", path]).strip()
        self.addCleanup(parts.must, ["losetup", "--detach", loop])
        if allocate:
            parts.must(["sbd", "-d", loop, "-1", "2", "-4", "4", "create"])
            parts.must(["sbd", "-d", loop, "allocate", "tk-p1"])
        return loop

    def device(self, *loops):
        """The keys of our kind `sbd`."""
        paths = ", ".join(f'"{loop}"' for loop in loops)
        limits = 'read_limit = "60s"\noff_limit = "60s"'
        return f'name = "pill"\nkind = "sbd"\ndevices = [{paths}]\nnode = "tk-p1"\n{limits}'

    def slot(self, loop):
        """The slot of tk-p1 as sbd reads it: message and sender."""
        listed = parts.must(["sbd", "-d", loop, "list"])
        return re.search(r"^\d+\s+tk-p1\s+(\S+)\s*(\S*)", listed, re.M).groups()


class BothDirections(Disks):
    """What one writes the other reads."""

    def test_our_message_is_read_by_sbd_and_is_never_evidence(self):
        loop = self.disk()
        self.assertEqual(self.slot(loop)[0], "clear")
        outcome = self.fence(self.config("", self.device(loop)), allowed=120)
        self.assertEqual(self.slot(loop), ("off", "antipode"), outcome.text)
        self.assertIsNone(outcome.evidence, "a message proves nothing")
        self.assertTrue(outcome.reasons, outcome.text)

    def test_their_message_is_read_by_us(self):
        loop = self.disk()
        parts.must(["sbd", "-d", loop, "message", "tk-p1", "test"])
        message, sender = self.slot(loop)
        self.assertEqual(message, "test")
        told = parts.must([self.program, "test", self.config("", self.device(loop))])
        self.assertIn(f"slot of tk-p1: test from {sender}", told)
        # fence_sbd writes what we read, and calls the message the machine's state: it says off, and nothing died.
        parts.must(["sbd", "-d", loop, "message", "tk-p1", "clear"])
        asked = f"devices={loop}\nplug=tk-p1\npower_timeout=30\n"
        parts.must(["fence_sbd"], input=f"action=off\n{asked}")
        self.assertEqual(self.slot(loop)[0], "off")
        status = parts.run(["fence_sbd"], input=f"action=status\n{asked}")
        self.assertEqual(status.returncode, 2, "the quirk for which fence_sbd is refused as evidence")
        self.assertIn("slot of tk-p1: off", parts.must([self.program, "test", self.config("", self.device(loop))]))

    def test_two_of_three_disks_are_enough_and_one_is_not(self):
        loops = [self.disk(f"disk{n}", allocate=n != 1) for n in range(3)]
        outcome = self.fence(self.config("", self.device(*loops)), allowed=120)
        self.assertEqual([self.slot(loops[n]) for n in (0, 2)], [("off", "antipode")] * 2)
        self.assertTrue(any(what == "accepted" for _, what, _ in outcome.notes()), outcome.text)
        loops = [self.disk(f"more{n}", allocate=n == 0) for n in range(3)]
        outcome = self.fence(self.config("", self.device(*loops)), allowed=6)
        self.assertFalse(any(what == "accepted" for _, what, _ in outcome.notes()), outcome.text)


class Watched(Disks):
    """A guest with softdog that runs `sbd watch` on the same disk."""

    def test_a_watching_host_dies_by_our_message(self):
        loop = self.disk()
        booted = image(self.folder, "watcher", ("virtio_blk", "softdog"), ["/usr/sbin/sbd"])
        disk = ["-drive", f"file={loop},format=raw,if=virtio,cache=none", "-no-reboot"]
        guest = Guest(self.folder, "watcher", booted, disk)
        self.addCleanup(guest.cut)
        guest.ready()
        guest.must("hostname tk-p1; sbd -d /dev/vda list")
        guest.must("setsid sbd -d /dev/vda -w /dev/watchdog -n tk-p1 watch > /run/sbd.log 2>&1 &")
        # It reads its slot: it takes a test message out of it. Until then and after it, it lives.
        held = "ls -l /proc/[0-9]*/fd 2> /dev/null | grep -c watchdog; true"
        wait_until(lambda: int(guest.must(held)) > 0, "sbd holds the watchdog")
        parts.must(["sbd", "-d", loop, "message", "tk-p1", "test"])
        wait_until(lambda: self.slot(loop)[0] == "clear", "the watcher reads its slot")
        self.assertTrue(guest.is_alive())
        outcome = self.fence(self.config("", self.device(loop)), allowed=120)
        self.assertIsNone(outcome.evidence, "nothing says that it died")
        wait_until(lambda: not guest.is_alive(), "the guest dies by our message")
        self.assertNotIn(OFF, [state for _, _, state in outcome.notes()])
        self.assertTrue(os.path.exists(loop))

"""The lab's own claims, tested without the product: guests booted by hand, in namespaces of this test's own prefix.

Needs root and what tests/lab/setup installs; a missing piece fails, it never skips.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
import unittest
import unittest.mock

from lab import cluster, net, procs, records, wan
from lab.guest import boot, build

PREFIX = f"t{os.getpid() % 100000}"
ADDRESS = "10.78.0.10"
IMAGES = os.environ.get("ANTIPODE_LAB_IMAGES") or f"{tempfile.gettempdir()}/antipode-lab-images"


def wait_until(condition, what, limit=90.0):
    """Waits for a true value and returns it; fails with `what` after `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)


class GuestCase(unittest.TestCase):
    """A scratch folder, an observer, and guests that are gone afterwards."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="antipode-lab-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.kernel, self.image = build.initramfs(IMAGES)
        self.stamps, self.socket = f"{self.folder}/stamps.jsonl", f"{self.folder}/observer.sock"
        self.addCleanup(net.Net(PREFIX).down)

    def observe(self):
        self.tool("observer", "--out", self.stamps, self.socket)
        wait_until(lambda: os.path.exists(self.socket), "the observer listens", 20)

    def tool(self, name, *arguments, netns=None):
        env = {**os.environ, "PYTHONPATH": net.TESTS, "PYTHONDONTWRITEBYTECODE": "1"}
        argv = [sys.executable, "-m", f"lab.{name}", *arguments]
        return procs.start(PREFIX, name, argv, f"{self.folder}/{name}.log", netns=netns, env=env)

    def guest(self, name, disk, append="", extra=(), netns=None):
        devices = ["-drive", f"file={disk},format=raw,if=virtio,cache=none"] if disk else []
        devices += ["-device", "virtio-serial-pci"]
        devices += ["-chardev", f"socket,id=o,path={self.socket}"]
        devices += ["-device", "virtserialport,chardev=o,name=org.antipode.observer", *extra]
        shared = {"kernel": self.kernel, "image": self.image, "append": append}
        guest = boot.Guest(self.folder, name, devices, netns=netns, **shared)
        self.addCleanup(guest.cut)
        return guest

    def stamps_of(self, **wanted):
        found = [r for r in records.read(self.stamps) if r["kind"] == "stamp"]
        return [r for r in found if all(r.get(k) == v for k, v in wanted.items())]


class Program(unittest.TestCase):
    """Which program is under test."""

    def test_a_program_that_is_named_and_not_there_is_replaced_by_none(self):
        with unittest.mock.patch.dict(os.environ, {"ANTIPODE_BIN": "/nowhere/antipode"}):
            with self.assertRaisesRegex(SystemExit, "ANTIPODE_BIN names /nowhere/antipode"):
                cluster.binary()
        with unittest.mock.patch.dict(os.environ, {"ANTIPODE_BIN": sys.executable}):
            self.assertEqual(cluster.binary(), sys.executable)


class OneGuest(GuestCase):
    """A guest without a network."""

    def setUp(self):
        super().setUp()
        self.observe()
        self.disk = build.data_disk(f"{self.folder}/disk.raw")

    def test_identity_comes_from_the_firmware_strings(self):
        oem = ["-smbios", "type=11,value=antipode.epoch=7,value=antipode.host=os-k1"]
        self.guest("dmi", self.disk, extra=oem).wait_console("GUEST-READY epoch=7 host=os-k1 ")
        wait_until(lambda: self.stamps_of(epoch=7, host="os-k1"), "stamps of epoch 7")

    def test_identity_on_the_command_line_wins_over_the_firmware(self):
        oem = ["-smbios", "type=11,value=antipode.epoch=7,value=antipode.host=os-k1"]
        guest = self.guest("both", self.disk, append="antipode.epoch=8 antipode.host=tk-1", extra=oem)
        guest.wait_console("GUEST-READY epoch=8 host=tk-1 ")

    def test_stamps_reach_observer_and_disk_while_the_guest_lives(self):
        guest = self.guest("stamps", self.disk, append="antipode.epoch=3 antipode.host=h")
        guest.wait_console("GUEST-READY")
        first = wait_until(lambda: self.stamps_of(epoch=3), "a first stamp")[0]
        wait_until(lambda: len(self.stamps_of(epoch=3)) > 200, "200 stamps")
        guest.cut()
        seen = self.stamps_of(epoch=3)
        self.assertEqual({r["guest_boot"] for r in seen}, {first["guest_boot"]})
        numbers = [r["seq"] for r in seen]
        self.assertEqual(numbers, sorted(set(numbers)), "each tick is stamped at most once, in order")
        on_disk = [json.loads(r) for r in build.read_log(self.disk, "stamps.log")]
        self.assertTrue(on_disk)
        self.assertEqual({r["guest_boot"] for r in on_disk}, {first["guest_boot"]})

    def test_a_record_that_the_disk_refused_is_answered_503_and_the_next_takes_its_number(self):
        # The first block of the log fails once; a request is put to the guest through QEMU's own user network.
        found = subprocess.run(["/sbin/debugfs", "-R", "bmap /requests.log 0", self.disk], capture_output=True, text=True)
        described = subprocess.run(["/sbin/dumpe2fs", "-h", self.disk], capture_output=True, text=True).stdout
        block = int(next(line.split()[-1] for line in described.splitlines() if line.startswith("Block size")))
        error = {"event": "none", "iotype": "write", "errno": 5, "sector": int(found.stdout) * block // 512, "once": True}
        drive = {"driver": "raw", "node-name": "d", "cache": {"direct": True}}
        image = {"driver": "file", "filename": self.disk}
        drive["file"] = {"driver": "blkdebug", "inject-error": [error], "image": image}
        extra = ["-blockdev", json.dumps(drive), "-device", "virtio-blk-pci,drive=d"]
        extra += ["-netdev", "user,id=u,net=10.9.0.0/24,restrict=on,hostfwd=tcp:127.0.0.1:0-10.9.0.15:80"]
        extra += ["-device", "virtio-net-pci,netdev=u"]
        guest = self.guest("refused", None, append="antipode.ip=10.9.0.15/24", extra=extra)
        guest.wait_console("GUEST-READY")
        port = guest.forwarded_port()
        self.assertEqual(self.get(port, "first")[0], 503)
        status, answer = self.get(port, "second")
        self.assertEqual((status, answer["n"], answer["nonce"]), (200, 0, "second"))
        guest.cut()
        self.assertEqual([json.loads(r)["nonce"] for r in build.read_log(self.disk)], ["second"])

    def get(self, port, nonce):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.addCleanup(c.close)
        c.request("GET", f"/w?id={nonce}")
        r = c.getresponse()
        return r.status, json.loads(r.read())

    def test_the_power_button_ends_it_cleanly(self):
        guest = self.guest("button", self.disk)
        guest.wait_console("GUEST-READY")
        guest.button()
        guest.wait_console("GUEST-DOWN")
        self.assertEqual(guest.process.wait(60), 0)
        clean = subprocess.run(["/sbin/e2fsck", "-fn", self.disk], capture_output=True, text=True)
        self.assertEqual(clean.returncode, 0, clean.stdout)

    def test_a_stubborn_guest_ignores_the_power_button(self):
        guest = self.guest("stubborn", self.disk, append="antipode.epoch=5 antipode.stubborn=1")
        guest.wait_console("GUEST-READY")
        guest.button()
        guest.wait_console("GUEST-STUBBORN")
        before = len(self.stamps_of(epoch=5))
        wait_until(lambda: len(self.stamps_of(epoch=5)) > before + 20, "it lives on")
        self.assertIsNone(guest.process.poll())


class Port:
    """A socket in which one frame lies that the kernel took in a while ago."""

    def __init__(self, lain_s):
        stamp = wan.STAMP.pack(*divmod(time.time_ns() - int(lain_s * 1e9), 10**9))
        self.lying = [(b"frame", [(socket.SOL_SOCKET, wan.SO_TIMESTAMPNS, stamp)], 0, None)]

    def recvmsg(self, *_):
        if not self.lying:
            raise BlockingIOError
        return self.lying.pop()


class Wire(unittest.TestCase):
    """What the emulator makes of the moments at which frames came."""

    def due(self, gather, lain_s):
        """In how many seconds from now a frame leaves whose way takes a second."""
        path = wan.Path()
        path.set({"delay_ms": 1000})
        switch = types.SimpleNamespace(targets=lambda *_: ["b"], paths={("a", "b"): path}, ports={"b": None})
        with tempfile.TemporaryDirectory() as folder:
            wire = wan.Wan([], f"{folder}/control", 1, gather)
            with wire.control:
                now = time.monotonic()
                wire.receive(switch, "a", Port(lain_s))
        return wire.queue[0][0] - now

    def test_a_frame_that_lay_in_its_socket_leaves_when_it_would_have(self):
        # It can't leave sooner than its stamp says; how much later this test itself was is not asserted.
        self.assertLess(self.due(0.005, 0.3), 1.0)
        self.assertGreaterEqual(self.due(0.005, 0.0), 0.99)
        self.assertGreaterEqual(self.due(0.0, 0.3), 1.0, "nothing lies there where each frame wakes the emulator")

    def test_a_stamp_of_a_clock_that_was_set_counts_as_now(self):
        for lain_s in (-3_600.0, 3_600.0):
            self.assertGreaterEqual(self.due(0.005, lain_s), 1.0)


class TwoSites(GuestCase):
    """The segment, the client, and a takeover done by hand."""

    def setUp(self):
        super().setUp()
        self.net = net.Net(PREFIX)
        self.net.up()
        self.observe()
        self.disk = build.data_disk(f"{self.folder}/disk.raw")

    def guest_at(self, site, epoch):
        ns = self.net.netns(site)
        subprocess.run(["ip", "-n", ns, "tuntap", "add", "dev", "tap0", "mode", "tap"], check=True)
        subprocess.run(["ip", "-n", ns, "link", "set", "tap0", "master", "br-seg", "up"], check=True)
        mac = f"52:54:00:00:00:0{net.NUMBERS[site]}"
        nic = ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", f"virtio-net-pci,netdev=n,mac={mac}"]
        append = f"antipode.ip={ADDRESS}/24 antipode.epoch={epoch} antipode.host={site}"
        return self.guest(site, self.disk, append=append, extra=nic, netns=ns), mac

    def answers(self, out, epoch):
        return [r for r in records.read(out) if r["kind"] == "request" and r.get("epoch") == epoch]

    def test_every_answered_request_is_on_the_disk_after_a_power_loss(self):
        out = f"{self.folder}/client.jsonl"
        tokyo, mac = self.guest_at("tokyo", 1)
        tokyo.wait_console("GUEST-READY")
        self.tool("client", "--target", ADDRESS, "--out", out, netns=self.net.netns("client"))
        wait_until(lambda: len(self.answers(out, 1)) >= 20, "20 answers from tokyo")
        seen = [r for r in records.read(out) if r["kind"] == "neighbour"][-1]
        self.assertEqual((seen["mac"], seen["state"]), (mac, "reachable"))
        tokyo.cut()
        osaka, mac = self.guest_at("osaka", 2)
        osaka.wait_console("GUEST-READY")
        # The guest announces nothing, so the client holds on to the old MAC until somebody does: here this test.
        self.announce("osaka", mac)
        wait_until(lambda: len(self.answers(out, 2)) >= 5, "5 answers from osaka")
        osaka.cut()
        answered = {(r["n"], r["nonce"]) for e in (1, 2) for r in self.answers(out, e)}
        on_disk = [json.loads(r) for r in build.read_log(self.disk)]
        self.assertLessEqual(answered, {(r["n"], r["nonce"]) for r in on_disk})
        self.assertEqual([r["n"] for r in on_disk], list(range(len(on_disk))))
        last_old = max(r["t_ns"] for r in self.stamps_of(epoch=1))
        self.assertLess(last_old, min(r["t_ns"] for r in self.stamps_of(epoch=2)))

    def announce(self, site, mac):
        frame = b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("0806000108000604" + "0001")
        who = bytes.fromhex(mac.replace(":", "")) + bytes(map(int, ADDRESS.split(".")))
        frame += who + b"\xff" * 6 + bytes(map(int, ADDRESS.split(".")))
        code = "import socket;s=socket.socket(17,3);s.bind(('br-seg',0));s.send(bytes.fromhex('%s'))" % frame.hex()
        subprocess.run(["ip", "netns", "exec", self.net.netns(site), sys.executable, "-c", code], check=True)

    def ping(self, a, b, count=3):
        argv = ["ip", "netns", "exec", self.net.netns(a), "ping", "-q", "-c", str(count), "-i", "0.1", "-W", "1"]
        argv.append(net.address(b))
        done = subprocess.run(argv, capture_output=True, text=True)
        times = done.stdout.rpartition("=")[2].split("/") if done.returncode == 0 else None
        return float(times[0]) if times else None

    def test_round_trips_take_forty_milliseconds_and_cuts_work_in_one_direction(self):
        self.assertGreaterEqual(self.ping("tokyo", "osaka"), 40.0)
        self.net.cut("osaka", "tokyo", oneway=True)
        self.assertIsNone(self.ping("tokyo", "osaka"))
        before = self.dropped("tokyo", "osaka")
        self.assertGreaterEqual(self.ping("tokyo", "nagoya"), 40.0)
        self.assertEqual(self.dropped("tokyo", "osaka"), before, "the other direction isn't cut")
        self.net.heal()
        self.assertGreaterEqual(self.ping("tokyo", "osaka"), 40.0)

    def test_loss_and_jitter_hit_the_path_they_are_set_for(self):
        self.net.shape("tokyo", "osaka", nets=("wan",), loss=0.5, jitter_ms=15)
        argv = ["ip", "netns", "exec", self.net.netns("tokyo"), "ping", "-q", "-c", "100", "-i", "0.01", "-W", "2"]
        lossy = subprocess.run([*argv, net.address("osaka")], capture_output=True, text=True).stdout
        lost = float(re.search(r"([\d.]+)% packet loss", lossy).group(1))
        # Lost in both directions by half: a quarter comes back. 100 of them: 55 to 93 % lost, or the odds are 10^-5.
        self.assertTrue(55 <= lost <= 93, lossy)
        spread = [float(x) for x in re.search(r"= ([\d./]+) ms", lossy).group(1).split("/")]
        self.assertGreater(spread[3], 2.0, "jitter shows in the deviation")
        self.assertEqual(self.ping("tokyo", "nagoya", 10) is None, False)

    def dropped(self, a, b):
        return sum(p["dropped"] for p in self.net.ask({})["paths"] if (p["from"], p["to"]) == (a, b))

    def test_machines_of_their_own_on_a_wire_that_looks_by_itself_are_as_far_away(self):
        self.net.down()
        self.net = net.Net(PREFIX, machines={"tk-2": ("tokyo", "10.77.0.11")}, gather_ms=5)
        self.addCleanup(self.net.down)
        self.net.up()
        self.assertGreaterEqual(self.ping("tokyo", "osaka"), 40.0)
        self.assertGreaterEqual(self.ping("tk-2", "osaka"), 40.0)
        self.assertLess(self.ping("tk-2", "tokyo", 20), 40.0, "the quickest of twenty: both are at one site")
        self.net.isolate("tokyo")
        self.assertIsNone(self.ping("tk-2", "osaka"), "a site is cut off with its machines")
        self.assertIsNotNone(self.ping("tk-2", "tokyo"))

    def test_a_lab_that_crashed_is_cleared_by_the_next(self):
        again = net.Net(PREFIX)
        again.up()
        self.assertGreaterEqual(self.ping("osaka", "nagoya"), 40.0)


if __name__ == "__main__":
    unittest.main()

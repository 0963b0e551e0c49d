"""Arrays and the hosts that share them: Linux' own target (LIO) in a guest, tgt beside it, and two initiator guests.

A host's QEMU speaks iSCSI and hands the guest's SCSI commands through (`scsi-block`), so each drive of a guest is a
block device on a real logical unit, and a nexus of its own. LIO and tgt differ in what fencing rests on: tgt can't
abort, and keeps a registration for one session only.
"""

from fencing import parts
from fencing.case import free_port, wait_until
from fencing.guest import Guest, image

IQN = "iqn.2026-01.test.fencing"
#: LIO's units: the first two are one host's volumes, the third is for what only one test does.
UNITS = ("data", "log", "lost")
#: tgt's units, numbered from 1: one to be claimed, one whose claimant has to log in again.
TGT_UNITS = ("tgt", "again")
#: What a host's drives are, in order: unit and array.
DRIVES = (("data", "lio"), ("data", "lio"), ("log", "lio"), ("lost", "lio"), ("tgt", "tgt"), ("again", "tgt"))
SIZE = 16 << 20

LIO = """set -e
mount -t configfs config /sys/kernel/config
cd /sys/kernel/config/target
mkdir -p /var/target/pr core/iblock_0 iscsi/{iqn}/tpgt_1/np/0.0.0.0:3260
group=iscsi/{iqn}/tpgt_1
n=0
for unit in {units}; do
  mkdir core/iblock_0/$unit "$group/lun/lun_$n"
  echo "udev_path=/dev/vd$(echo $n | tr 012 abc)" > core/iblock_0/$unit/control
  echo "$unit" > core/iblock_0/$unit/wwn/vpd_unit_serial
  echo 1 > core/iblock_0/$unit/enable
  ln -s /sys/kernel/config/target/core/iblock_0/$unit "$group/lun/lun_$n/unit"
  n=$((n+1))
done
echo 0 > $group/attrib/authentication
echo 1 > $group/attrib/generate_node_acls
echo 1 > $group/attrib/cache_dynamic_acls
echo 0 > $group/attrib/demo_mode_write_protect
echo 1 > $group/enable
"""


class Arrays:
    """Both arrays and both hosts. `start` starts a process, `cleanup` registers what is done at the end."""

    def __init__(self, folder, program, start, cleanup):
        self.folder, self.start, self.cleanup = folder, start, cleanup
        self.ports = {"lio": free_port(), "tgt": free_port()}
        self._start_lio()
        self._start_tgt()
        booted = image(self.folder, "host", ("virtio_scsi", "sd_mod", "sg"), [program, "/usr/bin/sg_persist"])
        self.array.ready()
        self.array.must(LIO.format(iqn=f"{IQN}:lio", units=" ".join(UNITS)))
        self.hosts = [self._start_host(name, booted) for name in ("h1", "h2")]
        for host in self.hosts:
            host.ready()

    def _disk(self, name):
        path = f"{self.folder}/{name}.img"
        with open(path, "wb") as f:
            f.truncate(SIZE)
        return path

    def _start_lio(self):
        modules = ("virtio_blk", "virtio_net", "target_core_mod", "target_core_iblock", "iscsi_target_mod")
        booted = image(self.folder, "array", modules)
        more = ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.ports['lio']}-10.0.2.15:3260"]
        more += ["-device", "virtio-net-pci,netdev=n"]
        for unit in UNITS:
            disk = self._disk(unit)
            if unit == "data":
                parts.must(["mke2fs", "-q", "-t", "ext4", disk])
            more += ["-drive", f"file={disk},format=raw,if=virtio,cache=writethrough"]
        self.array = Guest(self.folder, "array", booted, more)
        self.cleanup(self.array.cut)

    def _start_tgt(self):
        self.control = {**parts.ENV, "TGT_IPC_SOCKET": f"{self.folder}/tgt"}
        argv = ["tgtd", "-f", "-C", "1", "--iscsi", f"portal=127.0.0.1:{self.ports['tgt']}"]
        self.start("tgtd", argv, self.control)
        show = ("target", "--op", "show")
        wait_until(lambda: self.tgtadm(*show, run=parts.run).returncode == 0, "tgtd answers")
        self.tgtadm("target", "--op", "new", "--tid", "1", "-T", f"{IQN}:tgt")
        for lun, name in enumerate(TGT_UNITS, start=1):
            unit = ("logicalunit", "--tid", "1", "--lun", str(lun), "--op")
            self.tgtadm(*unit, "new", "-b", self._disk(name))
            self.tgtadm(*unit, "update", "--params", f"scsi_sn={name}")
        self.tgtadm("target", "--op", "bind", "--tid", "1", "-I", "ALL")

    def tgtadm(self, *more, run=parts.must):
        """Tells tgtd something."""
        return run(["tgtadm", "-C", "1", "--lld", "iscsi", "--mode", *more], env=self.control)

    def end_sessions(self, host):
        """Ends a host's sessions at tgt; its QEMU logs in again by itself. How many there were."""
        shown = self.tgtadm("conn", "--op", "show", "--tid", "1")
        ended = 0
        for session in shown.split("Session: ")[1:]:
            if f"{IQN}:{host.name}" in session:
                number, connection = session.split()[0], session.split("Connection: ")[1].split()[0]
                self.tgtadm("conn", "--op", "delete", "--tid", "1", "--sid", number, "--cid", connection)
                ended += 1
        return ended

    def _start_host(self, name, booted):
        more = ["-device", "virtio-scsi-pci,id=scsi"]
        for number, (unit, array) in enumerate(DRIVES):
            lun = UNITS.index(unit) if array == "lio" else 1 + TGT_UNITS.index(unit)
            url = f"iscsi://127.0.0.1:{self.ports[array]}/{IQN}:{array}/{lun}"
            more += ["-drive", f"file={url},format=raw,if=none,id=d{number},file.initiator-name={IQN}:{name}"]
            more += ["-device", f"scsi-block,bus=scsi.0,drive=d{number},scsi-id={number}"]
        host = Host(self.folder, name, booted, more)
        self.cleanup(host.cut)
        return host


class Host(Guest):
    """A host with a drive on each unit, two on the first."""

    def ready(self):
        super().ready()
        found = "for n in 0 1 2 3 4 5; do ls /sys/bus/scsi/devices/?:0:$n:0/block 2> /dev/null; done; true"
        wait_until(lambda: len(self.must(found).split()) == len(DRIVES), "its drives are there")
        self.drives = [f"/dev/{name}" for name in self.must(found).split()]
        return self

    def paths(self, unit):
        """Its drives on a unit."""
        return [drive for drive, (name, _) in zip(self.drives, DRIVES) if name == unit]

    def keys(self, unit):
        """The keys that are registered on a unit, as sg_persist reads them over this host's first path."""
        shown = self.must(f"sg_persist -i -k {self.paths(unit)[0]}")
        return sorted(line.strip() for line in shown.splitlines() if line.strip().startswith("0x"))

    def reservation(self, unit):
        """(key, type) of the reservation on a unit, as sg_persist reads it; None if there is none."""
        shown = self.must(f"sg_persist -i -r {self.paths(unit)[0]}")
        if "NO reservation" in shown:
            return None
        key = next(line.split("=")[1].strip() for line in shown.splitlines() if line.strip().startswith("Key="))
        return key, shown.rpartition("type:")[2].strip()

    def write(self, target):
        """Writes a block and has it made durable; the exit code."""
        seek = "" if target.startswith("/data") else "seek=9"
        return self.sh(f"dd if=/dev/urandom of={target} bs=4096 count=1 {seek} conv=fsync,notrunc")[0]


"""A hypervisor without systemd: libvirtd in its own mount namespace, with domains that only run their firmware."""

import os

from fencing import parts
from fencing.case import wait_until, write

UUID = "5a1f6a2e-0c1f-4b6a-9d53-0000000000{:02x}"
HOST_UUID = "9b8e2c55-77aa-4a0e-8f12-0000000000f0"
#: What libvirtd expects to own. Each is replaced, for it alone, by a folder of the test.
PLACES = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt"}
#: What it found out about QEMU takes seconds and is kept from run to run.
CACHE = "/var/cache/libvirt"

LIBVIRTD = f"""auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_dir = "/run/libvirt"
host_uuid = "{HOST_UUID}"
"""
QEMU = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/><controller type='usb' model='none'/>
</devices></domain>
"""


class Hypervisor:
    """One libvirtd. `case` starts it; its guests end with the test."""

    def __init__(self, case):
        self.case, self.folder = case, f"{case.folder}/hypervisor"
        cache = f"{parts.TARGET}/lab/libvirt-cache"
        places = {**{f"{self.folder}/{name}": place for name, place in PLACES.items()}, cache: CACHE}
        for ours, theirs in places.items():
            os.makedirs(ours, exist_ok=True)
            os.makedirs(theirs, exist_ok=True)
        write(f"{self.folder}/etc/libvirtd.conf", LIBVIRTD)
        write(f"{self.folder}/etc/qemu.conf", QEMU)
        binds = "".join(f"mount --bind '{ours}' '{theirs}' && " for ours, theirs in places.items())
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        argv.append(f"{binds} exec libvirtd -f /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid")
        case.start("libvirtd", argv)
        self.uri = f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"
        wait_until(lambda: self.virsh("version").returncode == 0, "libvirtd answers")
        self.names = []
        case.addCleanup(self.end_guests)

    def virsh(self, *command):
        """Asks libvirtd by virsh, past our code."""
        return parts.run(["virsh", "-c", self.uri, *command])

    def domain(self, name, running=True):
        """Defines a domain, starts it, and returns its UUID."""
        uuid = UUID.format(len(self.names) + 1)
        self.names.append(name)
        path = write(f"{self.folder}/{name}.xml", DOMAIN.format(name=name, uuid=uuid))
        parts.must(["virsh", "-c", self.uri, "define", path])
        if running:
            parts.must(["virsh", "-c", self.uri, "start", name])
        return uuid

    def pid(self, name):
        """The process of a running domain, or None."""
        path = f"{self.folder}/run/qemu/{name}.pid"
        if not os.path.exists(path):
            return None
        with open(path, encoding="ascii") as f:
            pid = int(f.read() or 0)
        return pid if os.path.exists(f"/proc/{pid}") else None

    def state(self, name):
        """What virsh says."""
        return self.virsh("domstate", name).stdout.strip()

    def end_guests(self):
        """libvirtd's guests outlive it; these must not outlive the test."""
        for name in self.names:
            pid = self.pid(name)
            if pid:
                os.kill(pid, 9)

    def device(self, name, *more):
        """A domain's keys for our kind `libvirt`."""
        lines = [f'name = "vm-{name}"', 'kind = "libvirt"', f'uri = "{self.uri}"', f'domain = "{name}"']
        return "\n".join([*lines, f'hypervisor_uuid = "{HOST_UUID}"', *more])

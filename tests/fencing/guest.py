"""A guest that does what a test says: busybox, chosen modules and programs, and commands over a virtio port.

Built from the lab's kernel and archive writer. A program is carried with the libraries that it asks for.
"""

import base64
import os
import re
import socket

from fencing import parts
from fencing.case import wait_until
from lab.guest import boot, build

MODULES = ("virtio_pci", "virtio_console")
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
while read -r module; do insmod "/modules/$module" || echo "module $module" > /dev/console; done < /modules/order
ifconfig lo up
[ ! -e /sys/class/net/eth0 ] || ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
for port in /sys/class/virtio-ports/*; do [ "$(cat "$port/name")" != commands ] || commands=/dev/${port##*/}; done
# A port can be open only once.
exec 3<> "$commands"
echo GUEST-READY > /dev/console
while :; do
  # Without a reader at the other end the port is at its end at once.
  while read -r tag text; do
    echo "$text" | base64 -d > /tmp/script
    sh /tmp/script > /tmp/out 2>&1 < /dev/null 3>&-
    echo "$tag $? $(base64 -w0 /tmp/out)" >&3
  done <&3
  sleep 0.1
done
"""


def _libraries(program):
    """The files that the dynamic linker will look for."""
    return re.findall(r"(/\S+) \(0x", parts.run(["ldd", program]).stdout)


def image(folder, name, modules, programs=()):
    """Writes an initramfs with these modules and programs; returns (kernel, image)."""
    vmlinuz, version = build.kernel()
    files = build.module_files(version, (*MODULES, *modules))
    names = "".join(os.path.basename(m) + "\n" for m in files)
    contents = {"init": INIT.encode(), "bin/busybox": _read("/bin/busybox")}
    for program in programs:
        # Symbols are half of a debug build.
        stripped = f"{folder}/stripped"
        parts.must(["strip", "-o", stripped, program])
        contents[f"usr/bin/{os.path.basename(program)}"] = _read(stripped)
        contents.update({library.lstrip("/"): _read(library) for library in _libraries(program)})
    folders = {"dev", "proc", "sys", "run", "tmp", "data", "modules", "sbin", "bin", "usr/sbin", "usr/bin"}
    for path in contents:
        folders.update(path[:at] for at, c in enumerate(path) if c == "/")
    folders.update({"usr"})
    entries = [(path, 0o040755, b"") for path in sorted(folders)]
    entries += [(path, 0o100755, content) for path, content in contents.items()]
    entries += [("modules/order", 0o100644, names.encode())]
    entries += [(f"modules/{os.path.basename(m)}", 0o100644, _read(m)) for m in files]
    path = f"{folder}/{name}.cpio"
    with open(path, "wb") as f:
        f.write(build.cpio(entries))
    return vmlinuz, path


def _read(path):
    with open(path, "rb") as f:
        return f.read()


class Guest:
    """One running guest."""

    def __init__(self, folder, name, booted, extra=()):
        kernel, initramfs = booted
        # The archive lies in memory twice while it is unpacked; its files may take half of the memory at most.
        memory = 128 + 3 * (os.path.getsize(initramfs) >> 20)
        path = f"{folder}/{name}.commands"
        devices = ["-device", "virtio-serial-pci", "-chardev", f"socket,id=c,path={path},server=on,wait=off"]
        devices += ["-device", "virtserialport,chardev=c,name=commands", *extra]
        self.name, self.count, self.rest = name, 0, b""
        shared = {"kernel": kernel, "image": initramfs, "memory": memory}
        self.guest = boot.Guest(folder, name, devices, **shared)
        self.socket = socket.socket(socket.AF_UNIX)
        self.path = path

    def ready(self):
        """Waits until it takes commands."""
        self.guest.wait_console("GUEST-READY", limit=240)
        wait_until(lambda: os.path.exists(self.path), "its port is there")
        self.socket.connect(self.path)
        self.must("true")
        return self

    def sh(self, script, limit=120):
        """Runs a script in the guest; (exit code, output)."""
        self.count += 1
        tag = f"c{self.count}"
        self.socket.settimeout(limit)
        self.socket.sendall(f"{tag} {base64.b64encode(script.encode()).decode()}\n".encode())
        while True:
            line, newline, rest = self.rest.partition(b"\n")
            if not newline:
                more = self.socket.recv(65536)
                if not more:
                    raise AssertionError(f"{self.name} is gone: {self.guest.console_text()[-800:]}")
                self.rest += more
                continue
            self.rest = rest
            answered, code, *output = line.decode().split()
            if answered == tag:
                return int(code), base64.b64decode(output[0] if output else b"").decode(errors="replace")

    def must(self, script, limit=120):
        """Runs a script that has to succeed; its output."""
        code, output = self.sh(script, limit)
        if code != 0:
            raise AssertionError(f"{self.name}: {script}: exit code {code}: {output}")
        return output

    def is_alive(self):
        """Its process runs."""
        return self.guest.process.poll() is None

    def cut(self):
        """Power loss, now."""
        self.socket.close()
        self.guest.cut()

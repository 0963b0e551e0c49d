"""A QEMU guest used as a host: the product's own binary on a real kernel, with a real /dev/watchdog.

The initramfs holds busybox, the product (with the libraries that it is linked against), the kernel's softdog, and this
host's own files. What happens inside is told over virtio ports and the second serial line; QEMU ends at the guest's
reset (`-no-reboot`), which is how a reset is seen from outside.
"""

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from lab.guest import build

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "watchdog")
#: Driver: (QEMU's arguments, what the keeper sets it to).
DOGS = {
    "softdog": ([], "1s"),
    "i6300esb": (["-device", "i6300esb", "-action", "watchdog=reset"], "2s"),
}
#: As the keeper wants it (protocol §2): a close doesn't stop it, neither does an orderly reboot.
OPTIONS = {"watchdog.ko": "stop_on_reboot=0", "softdog.ko": "nowayout=1", "i6300esb.ko": "nowayout=1"}
APPEND = "console=ttyS0 quiet loglevel=4 panic=0 rdinit=/init mitigations=off random.trust_cpu=on ipv6.disable=1 cryptomgr.notests apparmor=0 audit=0"
SLEEP_TARGETS = ("sleep", "suspend", "hibernate", "hybrid-sleep")


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def _libraries(binary):
    """Shared libraries of a program, the loader included; none for a static one."""
    done = subprocess.run(["ldd", binary], capture_output=True, text=True)
    return sorted(set(re.findall(r"(/\S+\.so[.0-9]*)", done.stdout)))


def compiled(name, folder):
    """One of the guest's programs, static; where it is."""
    source, out = f"{HERE}/guest/{name}", f"{folder}/{name.removesuffix('.c')}"
    os.makedirs(folder, exist_ok=True)
    done = subprocess.run([*build.COMPILE, "-s", "-o", out, source], capture_output=True, text=True)
    if done.returncode != 0:
        raise build.BuildError(f"{source} doesn't compile:\n{done.stderr}")
    return out


def full_kernel(folder):
    """(vmlinuz, version, where it is unpacked) of the distribution's full kernel, which has drivers of real chipsets.
    Its package is fetched and unpacked once, not installed: this machine needn't boot it."""
    _, cloud = build.kernel()
    version = cloud.replace("-cloud", "")
    under = f"{folder}/linux-{version}"
    if not os.path.exists(f"{under}/done"):
        shutil.rmtree(under, ignore_errors=True)
        os.makedirs(under)
        fetched = subprocess.run(["apt-get", "download", f"linux-image-{version}"], cwd=under, capture_output=True, text=True)
        packages = glob.glob(f"{under}/*.deb")
        if fetched.returncode != 0 or not packages:
            raise build.BuildError(f"can't fetch linux-image-{version}: {fetched.stderr.strip()}")
        subprocess.run(["dpkg", "-x", packages[0], under], check=True)
        os.unlink(packages[0])
        subprocess.run(["depmod", "-b", under, version], check=True)
        with open(f"{under}/done", "w", encoding="ascii"):
            pass
    return f"{under}/boot/vmlinuz-{version}", version, under


def image(folder, binary, files, dog="softdog"):
    """Builds (kernel, initramfs, watchdog driver) with `files` ({path: text}) laid in."""
    images = os.environ.get("ANTIPODE_LAB_IMAGES") or folder
    vmlinuz, version, under = (*build.kernel(), "") if dog == "softdog" else full_kernel(images)
    if not os.path.exists("/bin/busybox"):
        raise build.BuildError("no /bin/busybox: run tests/lab/setup (package busybox-static)")
    os.makedirs(folder, exist_ok=True)
    stripped = f"{folder}/antipode"
    subprocess.run(["strip", "-s", "-o", stripped, binary], check=True)
    contents = {"init": _read(f"{HERE}/guest/init"), "bin/busybox": _read("/bin/busybox")}
    contents |= {"antipode": _read(stripped)}
    contents |= {"bin/doom": _read(compiled("doom.c", folder)), "bin/life": _read(compiled("life.c", folder))}
    contents |= {path.lstrip("/"): _read(path) for path in _libraries(binary)}
    modules = build.module_files(version, (*MODULES, dog), under)
    names = [os.path.basename(m) for m in modules]
    contents["modules/order"] = "".join(f"{n} {OPTIONS.get(n, '')}\n" for n in names).encode()
    contents |= {f"modules/{n}": _read(m) for n, m in zip(names, modules)}
    contents |= {path.lstrip("/"): text.encode() for path, text in files.items()}
    masked = {f"etc/systemd/system/{name}.target": b"/dev/null" for name in SLEEP_TARGETS}
    out = f"{folder}/host-{dog}.cpio"
    with open(out, "wb") as f:
        f.write(build.cpio(_entries(contents, masked)))
    return vmlinuz, out, dog


def _entries(contents, links):
    folders = set()
    for path in [*contents, *links]:
        while "/" in path:
            path = path.rpartition("/")[0]
            folders.add(path)
    found = [(name, 0o040755, b"") for name in sorted(folders | {"dev", "proc", "sys", "run"})]
    found += [(path, 0o100755, content) for path, content in contents.items()]
    return found + [(path, 0o120777, target) for path, target in links.items()]


class HostGuest:
    """One host's QEMU. `env` is the environment of what runs inside: of a name that is given twice the last counts."""

    def __init__(self, folder, name, boot, extra=(), netns=None, env=""):
        self.folder, self.name = folder, name
        os.makedirs(folder, exist_ok=True)
        self.paths = {kind: f"{folder}/{name}.{kind}" for kind in ("console", "shell", "qmp", "ticks", "gdb")}
        for path in self.paths.values():
            if os.path.exists(path):
                os.unlink(path)
        kernel, initrd, dog = boot
        devices, self.dog_timeout = DOGS[dog]
        argv = ["ip", "netns", "exec", netns] if netns else []
        # It plays a whole machine: what else runs here should not make that one stand still.
        argv += ["nice", "-n", "-10", "qemu-system-x86_64", "-accel", "tcg,tb-size=64", "-M", "q35", "-m", "256", "-nodefaults", "-no-user-config",
                 "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", f"{APPEND} DOG_TIMEOUT={self.dog_timeout} {env}",
                 "-serial", f"file:{self.paths['console']}",
                 "-chardev", f"socket,id=sh,path={self.paths['shell']},server=on,wait=off", "-serial", "chardev:sh",
                 "-qmp", f"unix:{self.paths['qmp']},server=on,wait=off", "-device", "virtio-serial-pci",
                 "-chardev", f"file,id=tk,path={self.paths['ticks']}",
                 "-device", "virtserialport,chardev=tk,name=org.antipode.ticks",
                 "-chardev", f"socket,id=gdb,path={self.paths['gdb']},server=on,wait=off", "-gdb", "chardev:gdb",
                 *devices, *extra]  # fmt: skip
        with open(f"{folder}/{name}.qemu", "wb") as words:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True)
        self.shell = None

    def console(self):
        """What the guest wrote so far."""
        return _read(self.paths["console"]).decode(errors="replace") if os.path.exists(self.paths["console"]) else ""

    def wait(self, condition, what, limit=120.0):
        """Waits for a true value; fails with the console's end, at once when QEMU is gone."""
        until = time.monotonic() + limit
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > until or (self.process.poll() is not None and not condition()):
                raise AssertionError(f"{self.name}: not within {limit:.0f} s: {what}\n{self.console()[-1500:]}")
            time.sleep(0.02)

    def wait_up(self):
        """Waits until the guest runs its units and takes commands."""
        self.wait(lambda: "init: up" in self.console(), "it is up")
        self.shell = socket.socket(socket.AF_UNIX)
        self.shell.settimeout(60.0)
        self.shell.connect(self.paths["shell"])
        self.wait(lambda: self.run("echo ready").strip() == "ready", "its shell answers")

    def run(self, line):
        """Runs a line in the guest; its output. Fails when it ended with another status than 0."""
        status, text = self.attempt(line)
        if status != 0:
            raise AssertionError(f"{self.name}: {line}: status {status}: {text}")
        return text

    def attempt(self, line):
        """Runs a line in the guest; (status, output)."""
        self.shell.sendall(line.encode() + b"\n")
        heard = b""
        while not re.search(rb"(?m)^DONE (\d+)\s*\Z", heard):
            more = self.shell.recv(65536)
            if not more:
                raise AssertionError(f"{self.name}: {line}: the guest is gone; {heard[-500:]!r}")
            heard += more
        text, _, status = heard.decode(errors="replace").rpartition("DONE ")
        return int(status), text.replace("\r\n", "\n")

    def say(self, line):
        """Starts a line in the guest and doesn't wait for it: the guest may not live to answer."""
        self.shell.sendall(line.encode() + b"\n")

    def ticks(self):
        """What `doom` wrote: [(word, guest's nanoseconds)]."""
        lines = _read(self.paths["ticks"]).decode(errors="replace").split("\n")[:-1]
        return [(w, int(n)) for w, n in (line.split() for line in lines if len(line.split()) == 2)]

    def qmp(self, name, **arguments):
        """One order to QEMU."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20.0)
            s.connect(self.paths["qmp"])
            f = s.makefile("rw")
            f.readline()
            for one in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": arguments}):
                f.write(json.dumps(one) + "\n")
                f.flush()
                answer = json.loads(f.readline())
                while "event" in answer:
                    answer = json.loads(f.readline())
            return answer

    def hang(self):
        """The processor runs in a circle with interrupts off, for ever; the instant. Done over QEMU's debug port."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20.0)
            s.connect(self.paths["gdb"])
            registers = bytearray.fromhex(_gdb(s, "g"))
            rip, flags = int.from_bytes(registers[128:136], "little"), int.from_bytes(registers[136:140], "little")
            registers[136:140] = (flags & ~0x200).to_bytes(4, "little")
            for order in (f"G{registers.hex()}", f"M{rip:x},2:ebfe"):
                if _gdb(s, order) != "OK":
                    raise AssertionError(f"{self.name}: QEMU refused {order}")
            at = time.monotonic()
            s.sendall(_packet("D"))
            return at

    def freeze(self):
        """The machine stands still."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        """And goes on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self):
        """Ends QEMU and waits until it is gone."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_gone(self):
        """Whether QEMU has ended."""
        return self.process.poll() is not None

    def cut(self):
        """Power loss, now. Also ends a guest that has ended already."""
        self.kill()
        if self.shell:
            self.shell.close()
            self.shell = None

    def clear(self):
        """Removes what may be made again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _packet(order):
    return f"${order}#{sum(order.encode()) % 256:02x}".encode()


def _gdb(s, order):
    """One order of the remote debug protocol; its answer. That the machine stopped for us (`T…`) is none."""
    s.sendall(_packet(order))
    heard = b""
    while True:
        for found in re.finditer(rb"\$([^#]*)#..", heard):
            if not found.group(1).startswith((b"T", b"S")):
                s.sendall(b"+")
                return found.group(1).decode()
        more = s.recv(65536)
        if not more:
            raise AssertionError(f"QEMU's debug port closed at {order!r}: {heard[-200:]!r}")
        heard += more

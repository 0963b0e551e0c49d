"""Makes what a lab guest boots from: an initramfs of one static program and a few modules, and its data disk.

The initramfs is written here rather than by cpio(1), and module order is read from modules.dep, so that a build needs
nothing but a C compiler and the installed cloud kernel. Same inputs, same bytes: no owner, time or inode of this
machine gets in. Not here: how a guest is started (`boot`, and in a cluster the product itself).
"""

import glob
import hashlib
import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "evdev", "button")
SLOT_BYTES = 512
#: Records that requests.log and stamps.log hold. At the client's 20 requests a second the first lasts 27 minutes.
REQUEST_SLOTS = 32768
STAMP_SLOTS = 4096
DISK_BYTES = 64 << 20
COMPILE = ["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]


class BuildError(Exception):
    """The guest can't be built here; the text says what is missing."""


def kernel():
    """(path of the newest installed cloud kernel, its version)."""
    versions = [os.path.basename(p).removeprefix("vmlinuz-") for p in glob.glob("/boot/vmlinuz-*-cloud-amd64")]
    versions = [v for v in versions if os.path.exists(f"/lib/modules/{v}/modules.dep")]
    if not versions:
        raise BuildError("no cloud kernel installed: run tests/lab/setup (package linux-image-cloud-amd64)")
    newest = max(versions, key=lambda v: [int(n) if n.isdigit() else n for n in v.replace("-", ".").split(".")])
    return f"/boot/vmlinuz-{newest}", newest


def module_files(version, wanted=MODULES, under=""):
    """Module files in an order in which each one's dependencies come before it; `under` is where the kernel's package
    is unpacked, if it isn't installed."""
    root = f"{under}/lib/modules/{version}"
    needs = {}
    with open(f"{root}/modules.dep", encoding="ascii") as lines:
        for line in lines:
            path, _, rest = line.partition(":")
            needs[os.path.basename(path).removesuffix(".ko").replace("-", "_")] = (path, rest.split())
    order = []
    for name in wanted:
        if name.replace("-", "_") not in needs:
            raise BuildError(f"kernel {version} has no module {name}")
        path, rest = needs[name.replace("-", "_")]
        # modules.dep lists the nearest dependency first.
        for one in [*reversed(rest), path]:
            if f"{root}/{one}" not in order:
                order.append(f"{root}/{one}")
    return order


def cpio(entries):
    """An uncompressed newc archive of (name, mode, content)."""
    out = bytearray()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + encoded
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def _inputs():
    return sorted(glob.glob(f"{HERE}/*.[ch]")) + [os.path.abspath(__file__)]


def _fingerprint(version):
    digest = hashlib.sha256(version.encode())
    for path in _inputs():
        with open(path, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()[:16]


def initramfs(folder):
    """Builds the image into `folder` unless one of the same inputs is there; returns (kernel, image)."""
    vmlinuz, version = kernel()
    image = f"{folder}/guest-{_fingerprint(version)}.cpio"
    if os.path.exists(image):
        return vmlinuz, image
    if shutil.which("cc") is None:
        raise BuildError("no C compiler: run tests/lab/setup (packages gcc, libc6-dev)")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sources = [p for p in _inputs() if p.endswith(".c")]
        done = subprocess.run([*COMPILE, "-s", "-o", f"{scratch}/init", *sources], capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"the guest's program doesn't compile:\n{done.stderr}")
        modules = module_files(version)
        names = "".join(os.path.basename(m) + "\n" for m in modules)
        # The kernel opens /dev/console for PID 1 before devtmpfs is mounted; without it PID 1 opens its own later.
        entries = [(d, 0o040755, b"") for d in ("dev", "proc", "sys", "data", "modules")]
        entries += [("init", 0o100755, _read(f"{scratch}/init")), ("modules/order", 0o100644, names.encode())]
        entries += [(f"modules/{os.path.basename(m)}", 0o100644, _read(m)) for m in modules]
        part = f"{image}.{os.getpid()}"
        with open(part, "wb") as f:
            f.write(cpio(entries))
        os.replace(part, image)
    return vmlinuz, image


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def data_disk(path, size=DISK_BYTES, seed="antipode-lab", requests=()):
    """Makes a raw ext4 image with requests.log (blank but for `requests`) and a blank stamps.log, all blocks written."""
    blank = b" " * (SLOT_BYTES - 1) + b"\n"
    begun = b"".join(r.encode().ljust(SLOT_BYTES - 1) + b"\n" for r in requests)
    uuid = hashlib.sha256(seed.encode()).hexdigest()
    uuid = f"{uuid[:8]}-{uuid[8:12]}-4{uuid[13:16]}-8{uuid[17:20]}-{uuid[20:32]}"
    with tempfile.TemporaryDirectory() as root:
        for name, slots in (("requests.log", REQUEST_SLOTS), ("stamps.log", STAMP_SLOTS)):
            with open(f"{root}/{name}", "wb") as f:
                first = begun if name == "requests.log" else b""
                f.write(first + blank * (slots - len(first) // SLOT_BYTES))
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-m", "0", "-U", uuid]
        command += ["-E", f"hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"]
        # A small journal: it is replayed at each takeover.
        command += ["-J", "size=4", path, f"{size >> 10}k"]
        env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "SOURCE_DATE_EPOCH": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode != 0:
            raise BuildError(f"mke2fs: {done.stderr.strip()}")
    return path


def read_log(image, name="requests.log"):
    """The records of one log, read from a raw image without mounting it, so also from the disk of a crashed guest."""
    env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    done = subprocess.run(["debugfs", "-R", f"cat /{name}", image], capture_output=True, env=env)
    lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
    records = [line for line in lines if line]
    if done.returncode != 0 or not lines:
        raise BuildError(f"can't read {name} in {image}: {done.stderr.decode().strip()}")
    return records

"""The independent components, each of the version that these tests were written against, and our own program.

A missing component, or one of another upstream version, is an error: no test is ever skipped.
"""

import functools
import glob
import hashlib
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("TARGET_DIR") or os.environ.get("CARGO_TARGET_DIR") or f"{ROOT}/target"
#: Debian package and the upstream version that Debian 12 carries of it.
VERSIONS = {
    "openipmi": "2.0.33",
    "ipmitool": "1.8.19",
    "fence-agents": "4.12.1",
    "libvirt-daemon": "9.0.0",
    "python3-libvirt": "9.0.0",
    "sbd": "1.5.2",
    "tgt": "1.0.85",
    "sg3-utils": "1.46",
    "qemu-system-x86": "7.2",
    "qemu-block-extra": "7.2",
    "busybox-static": "1.35.0",
}
#: Fence agents come in one package or in one package each.
AGENTS = "/usr/sbin/fence_*"
#: Without our own search path: the agents' library has the name of this folder.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
ENV["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Missing(Exception):
    """A component isn't there, or isn't the one that was asked for."""


def run(argv, limit=120, **more):
    """Runs a program to its end; its output as text. Whether it succeeded is the caller's question."""
    more = {"capture_output": True, "text": True, "env": ENV, **more}
    return subprocess.run(argv, timeout=limit, check=False, **more)


def must(argv, limit=120, **more):
    """Runs a program that has to succeed; its standard output."""
    done = run(argv, limit, **more)
    if done.returncode != 0:
        raise Missing(f"{' '.join(argv)}: exit code {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def upstream(version):
    """Upstream's part of a Debian version."""
    return version.rpartition(":")[2].partition("-")[0].partition("+")[0]


@functools.cache
def check():
    """Every component is there, in its version."""
    shown = run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *VERSIONS]).stdout
    found = dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)
    for package, wanted in VERSIONS.items():
        have = upstream(found.get(package, ""))
        if have != wanted and not have.startswith(wanted + "."):
            raise Missing(f"{package}: {have or 'not installed'}, these tests need {wanted}: run tests/lab/setup")


def agents():
    """Every installed fence agent."""
    return sorted(glob.glob(AGENTS))


@functools.cache
def fence():
    """Our own program, which tries fencing devices out: `cargo run -p fencing --example fence`."""
    check()
    argv = ["cargo", "build", "--locked", "-p", "fencing", "--example", "fence"]
    must(argv, limit=3600, cwd=ROOT, env={**ENV, "CARGO_TARGET_DIR": TARGET})
    return f"{TARGET}/debug/examples/fence"


@functools.cache
def sushy():
    """The virtual environment with sushy-emulator, made when absent; its folder."""
    check()
    with open(f"{HERE}/requirements.txt", "rb") as f:
        wanted = f.read()
    folder = f"{TARGET}/lab/sushy-{hashlib.sha256(wanted).hexdigest()[:12]}"
    done = f"{folder}/complete"
    if not os.path.exists(done):
        must(["/usr/bin/python3", "-m", "venv", "--clear", "--system-site-packages", folder])
        pip = [f"{folder}/bin/pip", "--disable-pip-version-check", "--quiet", "install", "--retries", "5"]
        # What Debian's Python may carry already doesn't count: exactly these versions are installed.
        pip += ["--ignore-installed", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        must([*pip, "-r", f"{HERE}/requirements.txt"], limit=600)
        with open(done, "w", encoding="ascii"):
            pass
    return folder

"""Processes of a lab: started with a record on disk, ended by exactly that record.

Each lab has a folder under ROOT; a line "PID START NAME" there outlives a crashed test, and START (the kernel's start
time of that pid) makes sure that a recycled pid is never killed. Nothing is ever ended by name.
"""

import fcntl
import os
import signal
import subprocess
import time

_children = {}


def _root():
    """A folder on a file system in memory, where a host's own /run would be; short, since sockets live there."""
    with open("/proc/mounts", encoding="utf-8") as f:
        in_memory = {line.split()[1] for line in f if line.split()[2] == "tmpfs"}
    base = next((d for d in ("/run", "/dev/shm") if d in in_memory and os.access(d, os.W_OK)), "/tmp")
    return f"{base}/antipode-lab" if os.geteuid() == 0 else f"{base}/antipode-lab-{os.getuid()}"


ROOT = os.environ.get("ANTIPODE_LAB_RUN") or _root()


def folder(prefix):
    """The lab's folder for sockets and process records; made when absent."""
    path = f"{ROOT}/{prefix}"
    os.makedirs(path, exist_ok=True)
    return path


def started_at(pid):
    """The kernel's start time of a process in clock ticks, or None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _records(prefix):
    return f"{ROOT}/{prefix}/processes"


def start(prefix, name, argv, log, netns=None, env=None):
    """Starts `argv`, its output appended to `log`, in its own process group, recorded for `end_all`."""
    command = ["ip", "netns", "exec", netns, *argv] if netns else list(argv)
    os.makedirs(os.path.dirname(os.path.abspath(log)), exist_ok=True)
    folder(prefix)
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=env
        )
    _children[process.pid] = process
    with open(_records(prefix), "a", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(f"{process.pid} {started_at(process.pid) or 0} {name}\n")
    return process


def _signal_group(pid, number):
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def end(process, polite=2.0):
    """SIGTERM, then SIGKILL after `polite` seconds, to the process's own group; returns its exit status."""
    if process.poll() is None and polite > 0:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            return process.wait(polite)
        except subprocess.TimeoutExpired:
            pass
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def wait_gone(pids, limit=10.0):
    """Waits until none of these pids runs; returns those that still do."""
    until = time.monotonic() + limit
    left = list(pids)
    while left and time.monotonic() < until:
        for pid in left:
            # A child of this process stays a zombie until it is waited for.
            if pid in _children and _children[pid].poll() is not None:
                del _children[pid]
        left = [p for p in left if started_at(p) is not None]
        if left:
            time.sleep(0.02)
    return left


def end_all(prefix):
    """Ends every recorded process of this lab that still runs, also those of an earlier, crashed run."""
    try:
        with open(_records(prefix), encoding="ascii") as f:
            rows = [line.split(maxsplit=2) for line in f if line.strip()]
    except FileNotFoundError:
        return
    mine = [int(pid) for pid, began, _ in rows if started_at(int(pid)) == int(began)]
    for pid in mine:
        _signal_group(pid, signal.SIGKILL)
    left = wait_gone(mine)
    if left:
        raise RuntimeError(f"lab {prefix}: processes {left} survived SIGKILL for 10 s")
    os.unlink(_records(prefix))


def real_time(priority=10):
    """Asks for real-time priority, for parts that play hardware. Returns whether the kernel agreed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        return True
    except (PermissionError, OSError):
        return False

"""Raw records of a lab as JSON lines: one object a line, first line says who writes and how its clocks stood.

Times are CLOCK_MONOTONIC in nanoseconds under the key `t_ns`. The first line carries both clocks read together, so
that a file stamped with CLOCK_BOOTTIME can be laid beside these.
"""

import json
import os
import time


def clocks():
    """CLOCK_MONOTONIC and CLOCK_BOOTTIME, read as close together as a few tries allow."""
    best = None
    for _ in range(5):
        before = time.monotonic_ns()
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, {"monotonic_ns": (before + after) // 2, "boottime_ns": boot})
    return best[1]


class Writer:
    """Appends records to a fresh file; each `write` reaches the kernel before it returns."""

    def __init__(self, path, who):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.write([{"kind": "begin", "who": who, "t_ns": time.monotonic_ns(), "clocks": clocks()}])

    def write(self, records):
        """Writes a batch with one system call."""
        data = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records).encode()
        while data:
            data = data[os.write(self.fd, data) :]


def read(path, whole=False):
    """The records of a file, none when its writer has not begun; a torn last line (its writer was killed) is left out
    unless `whole` forbids it."""
    records = []
    if not whole and not os.path.exists(path):
        return records
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = f.read().split("\n")
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            if whole or at != len(lines) - 1:
                raise ValueError(f"{path}:{at + 1}: not JSON: {line[:120]!r}") from None
    return records


#: No two files of records begin with the same.
HEAD_BYTES = 96


class Tail:
    """A file that is still being written, read on from where the last look ended; a torn last line waits."""

    def __init__(self, path):
        self.path, self.at, self.head = path, 0, b""

    def more(self):
        """The whole records that came since the last look. A file that was begun anew is read from its beginning."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            # Another file under the name may have grown beyond where the old one was left; its first record has its time.
            if f.read(len(self.head)) != self.head:
                self.at = 0
            f.seek(0)
            self.head = f.read(HEAD_BYTES)
            f.seek(self.at)
            whole, _, _ = f.read().rpartition(b"\n")
        self.at += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.split(b"\n") if line.strip()]

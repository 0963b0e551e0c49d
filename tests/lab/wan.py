"""The WAN of a lab: learning switches whose every path between two ports has its own delay, jitter, loss and cuts.

    python3 -m lab.wan --control SOCKET [--seed N] [--gather MS] NAME=IFACE:SITE,IFACE:SITE,... ...

Usually each frame wakes it, which the kernel does on its sender's account. With `--gather` it looks for frames by itself, that
often, as a network card takes from its ring: a sender pays for its own part of the way only. A frame still leaves when it
would have, as long as its delay is longer than that: the kernel says when it came.

Runs inside the lab's WAN namespace on AF_PACKET sockets: nothing of the kernel's traffic control is needed, and a
change takes effect for the next frame. Control: a unix stream socket, one JSON object in, one out (`handle`).
Paths are one-way; both directions are set by two entries. Not here: namespaces and cables (`net`).
"""

import argparse
import heapq
import json
import os
import random
import select
import socket
import struct
import time

from lab import procs

ETH_P_ALL, SOL_PACKET, PACKET_IGNORE_OUTGOING = 3, 263, 23
SO_TIMESTAMPNS = 35
STAMP = struct.Struct("@qq")
BURST = 64
#: A released frame later than this after its due moment counts as late: the emulator itself was kept from running.
LATE_S = 0.010


class Path:
    """What happens to frames from one port to another."""

    def __init__(self):
        self.delay = self.jitter = self.loss = 0.0
        self.cut = self.reorder = False
        self.last_due = 0.0
        self.forwarded = self.dropped = 0

    def set(self, change):
        """Takes delay_ms, jitter_ms (delay ± jitter), loss (0..1), cut, reorder; others stay as they are."""
        for key, value in change.items():
            if key in ("delay_ms", "jitter_ms"):
                setattr(self, key[:-3], float(value) / 1000)
            elif key in ("loss", "cut", "reorder"):
                setattr(self, key, value)
            else:
                raise ValueError(f"unknown key {key}")

    def due(self, now, chance):
        """When a frame that arrives now leaves, or None when it is lost. Keeps the order unless told otherwise."""
        if self.cut or (self.loss and chance.random() < self.loss):
            self.dropped += 1
            return None
        due = now + max(0.0, self.delay + (chance.uniform(-self.jitter, self.jitter) if self.jitter else 0.0))
        if not self.reorder:
            due = self.last_due = max(due, self.last_due)
        return due


class Switch:
    """One layer-2 segment: ports by site, a table of addresses, a path for each ordered pair of sites."""

    def __init__(self, name, ports):
        self.name = name
        self.ports = {site: _raw_socket(interface) for interface, site in ports}
        self.paths = {(a, b): Path() for a in self.ports for b in self.ports if a != b}
        self.table = {}

    def targets(self, site, frame):
        """Sites that a frame goes to: one when its address was learnt, else all others."""
        destination, source = frame[:6], frame[6:12]
        self.table[source] = site
        known = None if destination[0] & 1 else self.table.get(destination)
        if known is None:
            return [s for s in self.ports if s != site]
        return [] if known == site else [known]


def _raw_socket(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    s.bind((interface, ETH_P_ALL))
    s.setblocking(False)
    return s


def waited(control, wall):
    """For how long a frame has lain in its socket, by the kernel's stamp; nothing if the wall clock was set meanwhile."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) >= STAMP.size:
            seconds, nanoseconds = STAMP.unpack_from(data)
            since = wall - seconds - nanoseconds / 1e9
            return since if 0.0 <= since < 1.0 else 0.0
    return 0.0


class Wan:
    """All switches, one queue of frames under way, one control socket."""

    def __init__(self, switches, control, seed, gather=0.0):
        self.switches = {s.name: s for s in switches}
        self.gather = gather
        self.chance = random.Random(seed)
        self.queue = []
        self.sequence = self.late = 0
        self.late_max = 0.0
        self.inputs = {p.fileno(): (s, site, p) for s in switches for site, p in s.ports.items()}
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(control):
            os.unlink(control)
        self.control.bind(control)
        self.control.listen(8)

    def run(self):
        """Forwards until the process is ended."""
        control = self.control.fileno()
        waiting = [control] if self.gather else [*self.inputs, control]
        while True:
            patience = min(0.5, max(0.0, self.queue[0][0] - time.monotonic())) if self.queue else 0.5
            ready, _, _ = select.select(waiting, [], [], min(patience, self.gather or patience))
            if self.gather:
                ready += select.select(list(self.inputs), [], [], 0)[0]
            for fd in ready:
                if fd == control:
                    self.converse()
                else:
                    self.receive(*self.inputs[fd])
            self.release()

    def receive(self, switch, site, port):
        """Takes up to a burst of frames from one port into the queue."""
        now, wall = time.monotonic(), time.time()
        for _ in range(BURST):
            try:
                frame, control, _, _ = port.recvmsg(65536, socket.CMSG_SPACE(STAMP.size))
            except (BlockingIOError, OSError):
                return
            came = now - waited(control, wall) if self.gather else now
            for other in switch.targets(site, frame):
                path = switch.paths[site, other]
                due = path.due(came, self.chance)
                if due is not None:
                    self.sequence += 1
                    heapq.heappush(self.queue, (due, self.sequence, switch.ports[other], frame, path))

    def release(self):
        """Sends what is due. A frame that a cut caught on the way is lost, as on a cable."""
        now = time.monotonic()
        while self.queue and self.queue[0][0] <= now:
            due, _, port, frame, path = heapq.heappop(self.queue)
            if now - due > LATE_S:
                self.late += 1
                self.late_max = max(self.late_max, now - due)
            try:
                if path.cut:
                    path.dropped += 1
                else:
                    port.send(frame)
                    path.forwarded += 1
            except OSError:
                path.dropped += 1

    def converse(self):
        """One question and its answer on the control socket."""
        peer, _ = self.control.accept()
        with peer:
            peer.settimeout(1.0)
            try:
                answer = self.handle(json.loads(peer.makefile("r").readline()))
            except (ValueError, KeyError, TypeError, OSError) as e:
                answer = {"error": f"{type(e).__name__}: {e}"}
            try:
                peer.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass

    def handle(self, question):
        """{"set": [[net, from, to, {changes}], ...]} or {"stats": true}; all of a set takes effect at one instant."""
        for net, a, b, change in question.get("set", []):
            self.switches[net].paths[a, b].set(change)
        paths = [
            {"net": s.name, "from": a, "to": b, "cut": p.cut, "forwarded": p.forwarded, "dropped": p.dropped}
            for s in self.switches.values()
            for (a, b), p in s.paths.items()
        ]
        return {"at_ns": time.monotonic_ns(), "late": self.late, "late_max_ms": self.late_max * 1000, "paths": paths}


def main():
    """Parses the cables and forwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gather", type=float, default=0.0, metavar="MS")
    parser.add_argument("switches", nargs="+", metavar="NAME=IFACE:SITE,...")
    options = parser.parse_args()
    procs.real_time()
    switches = []
    for text in options.switches:
        name, _, ports = text.partition("=")
        switches.append(Switch(name, [port.split(":") for port in ports.split(",")]))
    Wan(switches, options.control, options.seed, options.gather / 1000).run()


if __name__ == "__main__":
    main()

"""Receives the stamps of every guest and writes them down with its own clock.

    python3 -m lab.observer --out stamps.jsonl SOCKET [SOCKET ...]

It stands outside all namespaces and listens on unix sockets; each guest instance brings its own connection (QEMU's
virtio-serial port `org.antipode.observer` connects to the socket). It knows nothing of tickets, leases or the product.

Records: {"kind":"stamp","t_ns":…,"conn":N, and what the guest sent}; "open" and "close" of connections; "garbage"; and
"stall" when the observer itself was kept from running for longer than 100 ms: what two guests did meanwhile can't be
told apart, so whoever judges a run must know.
"""

import argparse
import json
import os
import select
import signal
import socket
import time

from lab import procs, records

STALL_NS = 100 * 1000 * 1000
PATIENCE_S = 0.05


class Observer:
    """One poll loop over all listening sockets and connections."""

    def __init__(self, out, sockets):
        self.out = records.Writer(out, "observer")
        self.poll = select.poll()
        self.listeners, self.connections = {}, {}
        self.count = 0
        self.going = True
        for path in sockets:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if os.path.exists(path):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o666)
            listener.listen(16)
            listener.setblocking(False)
            self.listeners[listener.fileno()] = listener
            self.poll.register(listener, select.POLLIN)

    def run(self):
        """Receives until told to end by SIGTERM."""
        last = time.monotonic_ns()
        while self.going:
            ready = self.poll.poll(PATIENCE_S * 1000)
            now = time.monotonic_ns()
            batch = []
            if now - last > STALL_NS:
                batch.append({"kind": "stall", "t_ns": now, "since_ns": last})
            last = now
            for fd, _ in ready:
                if fd in self.listeners:
                    batch += self.welcome(fd)
                else:
                    batch += self.receive(fd)
            if batch:
                self.out.write(batch)
        self.out.write([{"kind": "end", "t_ns": time.monotonic_ns(), "clocks": records.clocks()}])

    def welcome(self, fd):
        """A new connection gets the next number."""
        peer, _ = self.listeners[fd].accept()
        peer.setblocking(False)
        self.count += 1
        self.connections[peer.fileno()] = (self.count, peer, bytearray())
        self.poll.register(peer, select.POLLIN)
        return [{"kind": "open", "t_ns": time.monotonic_ns(), "conn": self.count}]

    def receive(self, fd):
        """All whole lines that are there, stamped with one reading of the clock, taken after they were read."""
        number, peer, rest = self.connections[fd]
        try:
            data = peer.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        now = time.monotonic_ns()
        if not data:
            self.poll.unregister(peer)
            del self.connections[fd]
            peer.close()
            return [{"kind": "close", "t_ns": now, "conn": number}]
        rest += data
        *lines, tail = bytes(rest).split(b"\n")
        rest[:] = tail
        return [self.stamp(now, number, line) for line in lines if line.strip(b"\0\r ")]

    def stamp(self, now, number, line):
        """One line as a record; a line that is no JSON object is kept as it is."""
        try:
            sent = json.loads(line.strip(b"\0\r "))
            return {"kind": "stamp", "t_ns": now, "conn": number, **{k: v for k, v in sent.items() if k != "t_ns"}}
        except (ValueError, AttributeError):
            return {"kind": "garbage", "t_ns": now, "conn": number, "text": line[:80].decode(errors="replace")}

    def stop(self, *_):
        """Ends the loop after the current round."""
        self.going = False


def main():
    """Parses, listens, receives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("sockets", nargs="+")
    options = parser.parse_args()
    observer = Observer(options.out, options.sockets)
    signal.signal(signal.SIGTERM, observer.stop)
    procs.real_time()
    observer.run()


if __name__ == "__main__":
    main()

"""Asks the workload without pause and writes down every answer and every failure.

    python3 -m lab.client --target A.B.C.D --out client.jsonl [--period-ms 50] [--connect-s 0.25] [--answer-s 2]

One request is outstanding at a time, each on a connection of its own with an id of its own, so that an outage is seen
from both ends within one period. A request that timed out may or may not have been done: it isn't an answer and isn't
repeated. Records: {"kind":"request","t_ns":begin,"done_ns":…,"nonce":…,"error":…} or with the answer's n, epoch, host,
boot; {"kind":"neighbour","mac":…,"state":…} whenever the kernel's entry for the target changed and once a second:
traffic alone keeps that entry reachable, so after a takeover only an announcement can change it in time.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import struct
import time

from lab import records

NUD = {1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed", 64: "noarp"}
RTM_GETNEIGH, NLM_F_REQUEST, NLM_F_DUMP, NLMSG_DONE, NDA_DST, NDA_LLADDR = 30, 1, 0x300, 3, 1, 2


def neighbour(target):
    """(MAC, state) of the kernel's IPv4 neighbour entry for `target`, or (None, "none")."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.settimeout(1.0)
        header = struct.pack("=IHHII", 28, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        s.send(header + struct.pack("=B11x", socket.AF_INET))
        wanted = socket.inet_aton(target)
        found = (None, "none")
        while True:
            data = s.recv(65536)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return found
                state, attributes = struct.unpack_from("=H", data, 24)[0], _attributes(data[28:length])
                if attributes.get(NDA_DST) == wanted:
                    mac = attributes.get(NDA_LLADDR)
                    found = (":".join(f"{b:02x}" for b in mac) if mac else None, NUD.get(state, str(state)))
                data = data[(length + 3) & ~3 :]


def _attributes(data):
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


class Client:
    """The endless questioner."""

    def __init__(self, options):
        self.options = options
        self.out = records.Writer(options.out, "client")
        self.going = True
        self.number = 0
        self.last_neighbour = (None, 0)

    def ask(self):
        """One request; its record."""
        self.number += 1
        record = {"kind": "request", "t_ns": time.monotonic_ns(), "nonce": f"c{self.number}"}
        try:
            c = http.client.HTTPConnection(self.options.target, self.options.port, timeout=self.options.connect_s)
            try:
                c.connect()
                c.sock.settimeout(self.options.answer_s)
                c.request("GET", f"/w?id=c{self.number}")
                r = c.getresponse()
                answer = json.loads(r.read())
                if r.status == 200 and answer.get("nonce") == f"c{self.number}":
                    record.update({k: answer.get(k) for k in ("n", "epoch", "host", "boot")})
                else:
                    record["error"] = f"HTTP {r.status}: {json.dumps(answer)[:120]}"
            finally:
                c.close()
        except (OSError, http.client.HTTPException, ValueError) as e:
            record["error"] = f"{type(e).__name__}: {e}"
        record["done_ns"] = time.monotonic_ns()
        return record

    def look_at_neighbour(self):
        """A record when the entry changed or a second has passed."""
        try:
            mac, state = neighbour(self.options.target)
        except OSError as e:
            mac, state = None, f"unreadable: {e}"
        now = time.monotonic_ns()
        seen, at = self.last_neighbour
        if (mac, state) == seen and now - at < 1_000_000_000:
            return []
        self.last_neighbour = ((mac, state), now)
        return [{"kind": "neighbour", "t_ns": now, "mac": mac, "state": state}]

    def run(self):
        """Asks until SIGTERM; a request that took longer than the period is followed at once by the next."""
        due = time.monotonic()
        while self.going:
            batch = [self.ask(), *self.look_at_neighbour()]
            self.out.write(batch)
            due = max(due + self.options.period_ms / 1000, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        self.out.write([{"kind": "end", "t_ns": time.monotonic_ns(), "clocks": records.clocks()}])

    def stop(self, *_):
        """Ends after the request under way."""
        self.going = False


def main():
    """Parses and asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--out", required=True)
    parser.add_argument("--period-ms", type=float, default=50)
    parser.add_argument("--connect-s", type=float, default=0.25)
    parser.add_argument("--answer-s", type=float, default=2.0)
    client = Client(parser.parse_args())
    signal.signal(signal.SIGTERM, client.stop)
    os.nice(-5) if os.geteuid() == 0 else None
    client.run()


if __name__ == "__main__":
    main()

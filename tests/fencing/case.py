"""What every live fencing test shares: a folder, processes that end with it, our program, and orders for it."""

import json
import os
import shutil
import socket
import tempfile
import time
import unittest

from fencing import parts
from lab import procs

PREFIX = f"fl{os.getpid() % 100000}"
PASSWORD = "bench-pass"


def wait_until(condition, what, limit=90.0):
    """Waits for a true value and returns it; fails with `what` after `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)


def end_processes():
    """Ends every process that these tests started, and forgets them."""
    procs.end_all(PREFIX)
    shutil.rmtree(procs.folder(PREFIX))


def free_port(kind=socket.SOCK_STREAM):
    """A port of the loopback that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def read(path):
    """The text of a file, or none."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def write(path, text, mode=0o644):
    """Writes a file, readable as far as `mode` says, and returns its path."""
    with open(path, "w", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, mode)) as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def order(host, allowed, claims=None, checked=False, he=1, index=1):
    """A fence order as the agent would give it, as JSON."""
    claims = {volume: {"own": own, "victims": victims} for volume, (own, victims) in (claims or {}).items()}
    return json.dumps({
        "task": index, "target": host, "he": he, "stamp": {"era": 1, "term": 1, "index": index}, "levels": "all",
        "allowed": {"secs": allowed, "nanos": 0}, "claims": claims,
        "address_move": "epoch-checked" if checked else "unchecked",
    })  # fmt: skip


class Outcome:
    """What our program told about an order."""

    def __init__(self, code, stdout, stderr):
        self.code, self.text = code, stdout + stderr
        self.reports = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        concluded = [r for r in self.reports if r["report"] == "concluded"]
        if not concluded:
            raise AssertionError(f"the order was never concluded (exit code {code}): {self.text}")
        self.verdict, self.at = concluded[0]["verdict"], seconds(concluded[0]["at"])
        self.finished = bool(self.reports) and self.reports[-1]["report"] == "finished"

    @property
    def evidence(self):
        """The proof, if there is one."""
        return self.verdict.get("evidence")

    @property
    def reasons(self):
        """Why there is none: what a person reads."""
        return [r["text"] for r in self.verdict.get("reasons", [])]

    def notes(self):
        """What happened, in order: (seconds, what, the observed state or the device's words)."""
        noted = [(seconds(r["at"]), r["note"]) for r in self.reports if r["report"] == "noted"]
        return [(at, note["note"], note.get("observed", note.get("because", ""))) for at, note in noted]

    def first(self, what, wanted=None):
        """When that was first told."""
        return next(at for at, told, state in self.notes() if told == what and wanted in (None, state))


def seconds(moment):
    """A moment or a span of our program in seconds."""
    return moment["secs"] + moment["nanos"] / 1e9 if isinstance(moment, dict) else moment


OFF = {"power": "off"}


class FencingCase(unittest.TestCase):
    """A folder and processes that are gone afterwards, however the test ends."""

    def setUp(self):
        self.program = parts.fence()
        self.folder = tempfile.mkdtemp(prefix="antipode-fence-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(end_processes)
        self.secret = write(f"{self.folder}/secret", PASSWORD, 0o600)

    def start(self, name, argv, env=None):
        """Starts a component that ends with the test."""
        return procs.start(PREFIX, name, argv, f"{self.folder}/{name}.log", env={**parts.ENV, **(env or {})})

    def config(self, host, *devices):
        """Writes a configuration: the host's keys, and each device's, as TOML lines."""
        names = [line.split('"')[1] for device in devices for line in device.splitlines() if line.startswith("name")]
        levels = ", ".join(f'["{name}"]' for name in names)
        text = f'[[host]]\nname = "tk-p1"\nfencing = [{levels}]\n{host}\n'
        text += "".join(f"[[device]]\n{device}\n" for device in devices)
        return write(f"{self.folder}/fencing.toml", text)

    def fence(self, config, allowed=120, **more):
        """Carries out an order against tk-p1. What it told contains no secret, and it was finished."""
        argv = [self.program, "run", config, "tk-p1", order("tk-p1", allowed, **more)]
        done = parts.run(argv, limit=allowed + 60)
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        self.assertTrue(outcome.finished, outcome.text)
        self.assertNotIn(PASSWORD, outcome.text)
        self.assertEqual(outcome.code, 0 if outcome.evidence else 1, outcome.text)
        return outcome

    def assert_proven(self, outcome, kind="powered-off"):
        """There is evidence of that kind for epoch 1, out of two readings a settle time apart."""
        self.assertIsNotNone(outcome.evidence, outcome.text)
        self.assertEqual((outcome.evidence["kind"], outcome.evidence["he"]), (kind, 1), outcome.text)
        for seen in outcome.evidence["seen"]:
            apart = seconds(seen["second"]) - seconds(seen["first"])
            self.assertGreaterEqual(apart, seconds(seen["settle"]), outcome.text)

    def assert_unproven(self, outcome, words):
        """There is no evidence, and a reason with these words."""
        self.assertIsNone(outcome.evidence, outcome.text)
        self.assertTrue(any(words in reason for reason in outcome.reasons), f"{words!r} isn't in {outcome.reasons}")

"""The raw files of one run as facts: the only place that knows how each file is laid out.

A run's folder holds
    run.jsonl            what the demonstration itself did: marks and every command it gave (`records` format)
    timing.json          the parameters in force, in milliseconds (`expected.REQUIRED` and more)
    client.jsonl         `lab.client`        stamps.jsonl    `lab.observer`
    events/HOST.jsonl    each agent's own journal, copied as it is; times in CLOCK_BOOTTIME
    events.jsonl         the same of all hosts in one file, for people
    chassis/HOST.jsonl   what each host's chassis wrote, copied as it is; times in CLOCK_BOOTTIME
    disks/*.raw          tokyo-crashed (as the dead site left it), tokyo, osaka (as they were at the end)

All times here are CLOCK_MONOTONIC nanoseconds of the machine that the lab runs on. Nothing of the product is imported:
its journal is read as JSON, and a kind or key that isn't there is simply absent from the facts.
"""

import glob
import json
import os
import re

from lab import records
from lab.guest import build


class RawError(Exception):
    """A raw file is missing or unreadable: nothing can be judged."""


def _kebab(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _who(value):
    """A host's incarnation, written as "host@3" or as an object, as (host, host epoch)."""
    if isinstance(value, dict):
        return value.get("host"), value.get("host_epoch", value.get("he"))
    if isinstance(value, str) and "@" in value:
        host, _, epoch = value.rpartition("@")
        return host, int(epoch.rpartition(":")[2]) if epoch.rpartition(":")[2].isdigit() else epoch
    return value, None


def flat(raw):
    """One journal line with `kind` in kebab case and its fields beside it.

    An agent tags its own events by `event`; what it saw applied is wrapped once more, {"event": "applied", "index": N,
    "fact": {"HostLost": {…}}}. Facts about evidence and plans have a kind of their own, kept as `of_kind`.
    """
    event = dict(raw)
    event["kind"] = event.pop("event", event.get("kind", ""))
    fact = event.pop("fact", None)
    if isinstance(fact, str):
        event["kind"] = fact
    elif isinstance(fact, dict) and len(fact) == 1:
        ((kind, fields),) = fact.items()
        fields = dict(fields) if isinstance(fields, dict) else {"value": fields}
        event["of_kind"] = fields.pop("kind", None)
        event |= {**fields, "kind": kind}
    event["kind"] = _kebab(str(event["kind"]))
    return event


class Run:
    """Everything that was recorded, times on one clock."""

    def __init__(self, folder):
        self.folder = folder
        self.marks = self._read("run.jsonl")
        self.client = self._read("client.jsonl")
        self.stamps = self._read("stamps.jsonl")
        clocks = self.marks[0]["clocks"]
        #: CLOCK_BOOTTIME minus CLOCK_MONOTONIC: constant, since the machine doesn't sleep during a run.
        self.offset_ns = clocks["boottime_ns"] - clocks["monotonic_ns"]
        self.events = self._journals("events")
        self.chassis = self._journals("chassis")
        try:
            with open(f"{folder}/timing.json", encoding="utf-8") as f:
                self.timing = json.load(f)
        except (OSError, ValueError) as e:
            raise RawError(f"timing.json: {e}") from e

    def _read(self, name):
        path = f"{self.folder}/{name}"
        if not os.path.exists(path):
            raise RawError(f"{name} is missing")
        try:
            found = records.read(path)
        except ValueError as e:
            raise RawError(str(e)) from e
        if not found or "clocks" not in found[0]:
            raise RawError(f"{name} doesn't begin with its writer's clocks")
        return found

    def _journals(self, kind):
        found = []
        for path in sorted(glob.glob(f"{self.folder}/{kind}/*.jsonl")):
            at = os.path.basename(path).removesuffix(".jsonl")
            try:
                lines = records.read(path)
            except ValueError as e:
                raise RawError(str(e)) from e
            for raw in lines:
                event = flat(raw)
                when = event.get("t_boot_ns", event.get("at_boottime_ns"))
                if when is not None:
                    found.append({**event, "at": at, "t_ns": int(when) - self.offset_ns})
        return sorted(found, key=lambda e: e["t_ns"])

    def mark(self, name):
        """The record of a mark that the demonstration set, or None."""
        return next((r for r in self.marks if r.get("kind") == "mark" and r.get("name") == name), None)

    def commands(self, since, until):
        """Commands of a person between two moments: given by the demonstration, or audited in anybody's journal."""
        given = [r for r in self.marks if r.get("kind") == "command" and r.get("changes") and since <= r["t_ns"] <= until]
        # An agent that comes back reads the log from its beginning and journals it all once more. An entry was given when
        # the first journal of all had it, however often and however late others tell of it.
        first = {}
        for e in self.events:
            if e["kind"] == "audited":
                first.setdefault(json.dumps(e.get("index", e.get("record")), sort_keys=True), e["t_ns"])
        audited = [t for t in first.values() if since <= t <= until]
        return max(len(given), len(audited))

    def first(self, kind, after=0, **wanted):
        """The earliest event of a kind in any journal, from a moment on, whose fields have the values given."""
        for e in self.events:
            if e["kind"] == kind and e["t_ns"] >= after and all(e.get(k) == v for k, v in wanted.items()):
                return e
        return None

    def answers(self):
        """Requests that were answered, in the order of their answers."""
        return sorted((r for r in self.client if r["kind"] == "request" and "n" in r), key=lambda r: r["done_ns"])

    def neighbours(self):
        """What the client's kernel held as the address of the workload, in time order."""
        return [r for r in self.client if r["kind"] == "neighbour"]

    def disk_log(self, name):
        """(n, nonce) of each record in a disk's request log, in order; None when there is no such image."""
        path = f"{self.folder}/disks/{name}.raw"
        if not os.path.exists(path):
            return None
        try:
            return [(r["n"], r["nonce"]) for r in map(json.loads, build.read_log(path))]
        except (build.BuildError, ValueError, KeyError) as e:
            raise RawError(f"{name}.raw: {e}") from e


def evidence_of(event):
    """One accepted evidence as the report shows it."""
    host, epoch = _who(event.get("of"))
    kind = event.get("of_kind")
    shown = {"host": host, "host_epoch": epoch, "kind": None if kind is None else _kebab(str(kind))}
    return {**shown, "lab": event.get("lab"), "log_index": event.get("index")}


def host_of(event, key="of"):
    """The host that an event is about."""
    return _who(event.get(key, event.get("peer")))[0]

"""A whole Antipode cluster in the lab: three sites, their hosts in chassis, one guest's disks, certificates, files.

    with Cluster("demo", folder) as c:      # up, and down whatever happens
        c.wait_ready()
        c.power_off("tk-1")

Everything that knows the product's grammar is in `spec` (files), `chassis` (hardware) and `Cluster.cli` (command line).
What is kept of a run is in `folder`; sockets and run directories are in memory and go with the lab. Each wait has a
limit and fails with what every host said last.
"""

import json
import os
import shutil
import subprocess
import sys
import time

from lab import chassis, net, procs, spec
from lab.guest import build

CLI_LIMIT_S = 15.0


def binary():
    """The product under test: ANTIPODE_BIN, or what cargo built last."""
    named = os.environ.get("ANTIPODE_BIN")
    if named:
        if not os.path.exists(named):
            raise SystemExit(f"no antipode binary: ANTIPODE_BIN names {named}, which isn't there; nothing else takes its place")
        return os.path.abspath(named)
    target = os.environ.get("TARGET_DIR") or os.environ.get("CARGO_TARGET_DIR") or f"{os.path.dirname(net.TESTS)}/target"
    candidates = [f"{target}/release/antipode", f"{target}/debug/antipode"]
    there = [p for p in candidates if os.path.exists(p)]
    if not there:
        raise SystemExit(f"no antipode binary: looked at {', '.join(candidates)}; run `make build`")
    return os.path.abspath(max(there, key=os.path.getmtime))


def cgroups():
    """Where cgroup version 2 is mounted; mounts it when nobody has."""
    with open("/proc/mounts", encoding="utf-8") as f:
        found = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    if found:
        return found[0]
    path = f"{procs.ROOT}/cgroup"
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", path], check=True)
    return path


class CliError(Exception):
    """A command of the product ended with another status than 0."""


class Cluster:
    """One lab cluster. `record` is called with each command given and each instant marked, for the run's journal."""

    def __init__(self, prefix, folder, options=None, record=None):
        self.prefix, self.folder = prefix, os.path.abspath(folder)
        self.options = options or spec.Options()
        self.record = record or (lambda **_: None)
        self.binary = binary()
        self.hosts = self.options.hosts
        self.addresses = self._addresses()
        self.net = net.Net(prefix, self._machines(), self.options.gather_ms)
        self.chassis = {h: self._chassis(h) for h in self.hosts}
        self.disks = {h: f"{self.folder}/hosts/{h}/root.raw" for h in self.hosts}
        self.observer = f"{procs.ROOT}/{prefix}/observer.sock"
        self.kernel = self.image = None

    def _addresses(self):
        """One address a host on the agents' network: the first of a site has the site's own."""
        seen, found = {}, {}
        for host, site in self.hosts.items():
            n = seen[site] = seen.get(site, -1) + 1
            found[host] = net.address(site) if n == 0 else f"10.77.0.{net.NUMBERS[site] + 10 * n}"
        return found

    def _machines(self):
        """{host: (site, address)} of those that have a namespace of their own."""
        if not self.options.own_machines:
            return {}
        return {h: (site, self.addresses[h]) for h, site in self.hosts.items() if self.addresses[h] != net.address(site)}

    def _netns(self, host):
        return self.net.netns(host if host in self.net.machines else self.hosts[host])

    def _chassis(self, host):
        lasting, run = f"{self.folder}/hosts/{host}", f"{procs.ROOT}/{self.prefix}/{host}"
        folders = {
            "config": f"{lasting}/agent.toml", "data": f"{lasting}/data", "tls": f"{lasting}/tls", "run": run,
            "keeper": f"{run}/keeper", "boot": f"{lasting}/boot.toml", "console": f"{lasting}/console.log",
            "address": self.addresses,
        }  # fmt: skip
        box = chassis.Chassis(self.prefix, host, self._netns(host), folders, self.binary)
        folders["slice"] = f"{cgroups()}/{box.slice()}"
        return box

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    # ---- up and down

    def up(self):
        """Networks, observer, certificates, files, disks; then power to every host at once."""
        if self.options.with_group:
            self.kernel, self.image = build.initramfs(os.environ.get("ANTIPODE_LAB_IMAGES") or f"{self.folder}/images")
        shutil.rmtree(f"{self.folder}/hosts", ignore_errors=True)
        self.net.up()
        for host, box in self.chassis.items():
            for key in ("data", "tls"):
                os.makedirs(box.folders[key])
            with open(box.folders["config"], "w", encoding="utf-8") as f:
                f.write(spec.agent_toml(host, self.hosts, box.folders, self.options.voters))
            if self.options.with_group and self.hosts[host] != spec.WITNESS:
                build.data_disk(self.disks[host])
        self._certificates()
        self._second_addresses()
        self.tool("observer", "--out", f"{self.folder}/stamps.jsonl", self.observer)
        self.wait_for(lambda: os.path.exists(self.observer), "the observer listens", 20)
        self.power_on(*self.hosts)

    def _second_addresses(self):
        for host, address in self.addresses.items():
            if address != net.address(self.hosts[host]) and host not in self.net.machines:
                ns = self.net.netns(self.hosts[host])
                subprocess.run(["ip", "-n", ns, "addr", "add", f"{address}/24", "dev", "wan0"], check=True)

    def _certificates(self):
        authority = f"{self.folder}/authority"
        shutil.rmtree(authority, ignore_errors=True)
        self._product("pki", "init", "--dir", authority, "--cluster", spec.CLUSTER)
        for host, site in self.hosts.items():
            out = self.chassis[host].folders["tls"]
            self._product("pki", "issue", "--dir", authority, "--host", host, "--site", site, "--out", out)

    def down(self):
        """Ends everything of this lab, also what an earlier run left. What is in `folder` stays."""
        self.net.down()
        for box in self.chassis.values():
            _remove_cgroup(os.path.dirname(box.folders["slice"]))

    def tool(self, name, *arguments, netns=None):
        """Starts one of the lab's own programs; it ends with the lab."""
        env = {**os.environ, "PYTHONPATH": net.TESTS, "PYTHONDONTWRITEBYTECODE": "1"}
        argv = [sys.executable, "-m", f"lab.{name}", *arguments]
        return procs.start(self.prefix, name, argv, f"{self.folder}/{name}.log", netns=netns, env=env)

    def client(self, period_ms=50):
        """Starts the client in the fourth namespace."""
        words = ["--target", spec.ADDRESS, "--out", f"{self.folder}/client.jsonl", "--period-ms", str(period_ms)]
        return self.tool("client", *words, netns=self.net.netns(net.CLIENT))

    # ---- power

    def at(self, *sites):
        """Hosts of some sites."""
        return [h for h, s in self.hosts.items() if s in sites]

    def power_off(self, *hosts):
        """Cuts the power of hosts at one instant, which is returned once all of them are dark."""
        at, _ = chassis.orders([self.chassis[h] for h in hosts], "off")
        self.record(kind="power", what="off", hosts=list(hosts), at_ns=at)
        return at

    def power_on(self, *hosts):
        """Gives power; the chassis empties run directories, as any boot does."""
        plugged = [self.chassis[h] for h in hosts if self.chassis[h].process]
        for host in hosts:
            if self.chassis[host].process is None:
                self.chassis[host].start()
        chassis.orders(plugged, "on")
        self.record(kind="power", what="on", hosts=list(hosts), at_ns=time.monotonic_ns())

    # ---- the product's command line

    def _product(self, *words, limit=CLI_LIMIT_S):
        done = subprocess.run([self.binary, *words], capture_output=True, text=True, timeout=limit)
        if done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise CliError(f"antipode {' '.join(words)}: exit {done.returncode}: {said}")
        return done.stdout

    def socket(self, host):
        """The admin socket of a host's agent."""
        return f"{self.chassis[host].folders['run']}/admin.sock"

    def cli(self, host, *words, changes=False, limit=CLI_LIMIT_S):
        """One command given to a host's agent; `changes` says that a person would have to answer for it."""
        self.record(kind="command", argv=list(words), host=host, changes=changes)
        return self._product(*words, "--socket", self.socket(host), limit=limit)

    def status(self, host=None):
        """The status that a host shows, or the first host that answers; None when none does."""
        for one in [host] if host else [*self.at(spec.WITNESS), *self.at("osaka"), *self.at("tokyo")]:
            try:
                return json.loads(self._product("status", "-o", "json", "--socket", self.socket(one), limit=5.0))
            except (CliError, ValueError, subprocess.TimeoutExpired):
                continue
        return None

    def group(self, name=spec.GROUP):
        """The group as some host shows it; empty while nobody knows it."""
        shown = self.status() or {}
        return next((g for g in shown.get("groups", []) if g["name"] == name), {})

    def leader(self):
        """(host, site) of the leader, or (None, None)."""
        host = ((self.status() or {}).get("quorum") or {}).get("leader")
        return (host, self.hosts.get(host)) if host else (None, None)

    def timing(self):
        """The time parameters in force, in milliseconds, as the product prints them."""
        shown = json.loads(self.cli(self.at(spec.WITNESS)[0], "config", "timing", "-o", "json"))
        values = {k: _milliseconds(v) for k, v in shown.get("timing", shown).items()}
        return {k: v for k, v in values.items() if v is not None}

    def apply(self, options=None):
        """Gives the cluster its spec, or another one."""
        guest = {"kernel": self.kernel, "image": self.image, "observer": self.observer}
        guest |= {"disk": f"{self.folder}/hosts/{{host}}/root.raw", "address": self.addresses}
        path = f"{self.folder}/cluster.toml"
        with open(path, "w", encoding="utf-8") as f:
            f.write(spec.cluster_toml(options or self.options, guest))
        self.cli(self.leader()[0], "apply", path, changes=True)

    # ---- waiting

    def wait_for(self, condition, what, limit=60.0):
        """Waits for a true value and returns it; after `limit` fails with what the hosts said last."""
        until = time.monotonic() + limit
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > until:
                raise AssertionError(f"not within {limit:.0f} s: {what}\n{self.dump()}")
            time.sleep(0.1)

    def wait_ready(self, limit=120.0):
        """The spec applied, a leader at the witness, the guest serving at home, its copy in sync."""
        self.wait_for(lambda: self.leader()[0], "a leader", limit)
        self.apply()
        self.wait_for(lambda: self.leader()[1] == spec.WITNESS, "a leader at the witness", limit)
        self.wait_for(lambda: self.group().get("site") == "tokyo" and self.is_in_sync(), "in sync at tokyo", limit)

    def is_in_sync(self):
        """Whether somebody shows the group as running with its copy in sync."""
        return self.is_protected(self.group())

    def is_protected(self, group):
        """Whether a group is running and another copy is in sync, or follows where no write waits for it."""
        data = group.get("data") or {}
        follows = self.options.mode == "async" and data.get("lag_ms") is not None and data.get("expected_loss_ms") is not None
        return group.get("state") == "running" and (follows or len(data.get("in_sync") or []) > 1)

    def dump(self, lines=12):
        """What each host said last, and what the cluster says about the group."""
        parts = [f"status: {json.dumps(self.status())}"]
        for host, box in self.chassis.items():
            said = {"chassis": box.folders["console"], "hardware": box.log, "journal": self.journal(host), **box.output()}
            for name, path in said.items():
                parts.append(f"--- {host} {name}\n{_tail(path, lines)}")
        for host in self.at(spec.WITNESS):
            try:
                explained = self._product("explain", "group", spec.GROUP, "--socket", self.socket(host))
                parts.append(f"--- explain\n{explained}")
            except (CliError, subprocess.TimeoutExpired) as e:
                parts.append(f"--- explain: {e}")
        return "\n".join(parts)

    # ---- what is kept

    def journal(self, host):
        """A host's own event journal."""
        return f"{self.chassis[host].folders['data']}/events.jsonl"

    def collect(self):
        """Copies journals and chassis logs to where a judge looks for them."""
        for kind in ("events", "chassis"):
            shutil.rmtree(f"{self.folder}/{kind}", ignore_errors=True)
            os.makedirs(f"{self.folder}/{kind}")
        for host, box in self.chassis.items():
            for kind, path in (("events", self.journal(host)), ("chassis", box.log)):
                if os.path.exists(path):
                    shutil.copyfile(path, f"{self.folder}/{kind}/{host}.jsonl")
        self._merge_journals()

    def _merge_journals(self):
        """Writes events.jsonl: the lines of all hosts' journals as they are, in the order of their moments."""
        lines = []
        for host in self.chassis:
            path = f"{self.folder}/events/{host}.jsonl"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as f:
                    lines += [line for line in f if line.endswith("\n")]
        lines.sort(key=lambda line: json.loads(line)["t_boot_ns"])
        with open(f"{self.folder}/events.jsonl", "w", encoding="utf-8") as f:
            f.writelines(lines)

    def keep_disk(self, host, name):
        """Copies a host's disk as it is now."""
        os.makedirs(f"{self.folder}/disks", exist_ok=True)
        subprocess.run(["cp", "--sparse=always", self.disks[host], f"{self.folder}/disks/{name}.raw"], check=True)


def _milliseconds(value):
    """A span as the product may print it, in milliseconds; a plain number stays one."""
    if isinstance(value, dict) and {"secs", "nanos"} <= set(value):
        return value["secs"] * 1000 + value["nanos"] / 1e6
    return value if isinstance(value, (int, float)) else None


def _tail(path, lines):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError as e:
        return str(e)


def _remove_cgroup(path):
    """Removes a host's cgroup once its processes are gone; the deepest first."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass

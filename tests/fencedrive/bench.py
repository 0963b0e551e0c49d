"""A lab cluster whose hosts can be fenced: each chassis has a panel, and the example adapter speaks to it.

The management network is one of its own: the panels are Unix sockets, so that a cut between sites cuts nobody from a
panel. Who may use one, only the quorum says.
"""

import json
import os
import subprocess

from lab import net, spec
from lab.cluster import CLI_LIMIT_S, Cluster

ADAPTER = f"{os.path.dirname(net.TESTS)}/examples/adapters/fence-panel"
#: Handed to the adapter on standard input and nowhere else.
SECRET = "panel-password-7f3a9c"


class FencedCluster(Cluster):
    """As `Cluster`, with a `command` device for each host at a site with workloads."""

    def apply(self):
        """Gives the cluster its spec, fence devices included."""
        os.makedirs(f"{self.folder}/secrets", exist_ok=True)
        secret = f"{self.folder}/secrets/panel"
        with open(os.open(secret, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(SECRET + "\n")
        super().apply()

    def cli(self, host, *words, changes=False, limit=CLI_LIMIT_S):
        """The spec gets its devices on its way to the product."""
        if words[0] == "apply":
            self._add_devices(words[1])
        return super().cli(host, *words, changes=changes, limit=limit)

    def fenced(self):
        """The hosts that have a device."""
        return [h for h, site in self.hosts.items() if site != spec.WITNESS]

    def _add_devices(self, path):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        devices = []
        for host in self.fenced():
            box = self.chassis[host]
            plain = f'name = "{host}"\nsite = "{self.hosts[host]}"\n'
            assert plain in text, f"the spec writes host {host} in another way"
            text = text.replace(plain, f'{plain}serial = "{box.name}"\n', 1)
            before, after = text.split(f'serial = "{box.name}"\n')
            text = f'{before}serial = "{box.name}"\n' + after.replace('[["self"]]', f'[["panel-{host}"], ["self"]]', 1)
            devices += [
                "[[device]]",
                f'name = "panel-{host}"',
                'kind = "command"',
                f'program = "{ADAPTER}"',
                f'settings = {{ panel = "{box.panel}" }}',
                f'secrets = {{ password = {{ file = "{self.folder}/secrets/panel" }} }}',
                "lab = true",
                'off_within = "1s"',
            ]
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + "\n".join(devices) + "\n")

    def ask(self, host, *words, limit=CLI_LIMIT_S):
        """One command to a host's agent, whatever comes of it: (exit status, standard output, standard error)."""
        self.record(kind="command", argv=list(words), host=host, changes=False)
        argv = [self.binary, *words, "--socket", self.socket(host)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def document(self, host, *words, limit=CLI_LIMIT_S):
        """The JSON document of a command that must succeed."""
        status, out, err = self.ask(host, *words, "-o", "json", limit=limit)
        assert status == 0, f"antipode {' '.join(words)}: exit {status}: {out}{err}"
        return json.loads(out)

    def chassis_log(self, host):
        """What a host's hardware wrote."""
        with open(self.chassis[host].log, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def switched_off(self, host):
        """Why the host lost its power, each time."""
        return [r.get("because") for r in self.chassis_log(host) if r["event"] == "power-off"]

    def attempts(self, host):
        """The calls that a host's executor recorded before it made them."""
        path = f"{self.chassis[host].folders['data']}/fencing/fence.journal"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as f:
            records = [json.loads(line) for line in f if line.endswith("\n")]
        return [(r["task"]["target"], r["device"]) for r in records if r["event"] == "calling"]

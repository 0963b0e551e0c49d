"""People for a fenced cluster: certificates of its own authority, the admin endpoint that they reach over mutual TLS, and
one person who has two names on one key.

Everything that a person does goes through the product's command line from the witness' namespace; a replay goes through
`post`, which knows nothing of the product but the bytes of a request.
"""

import json
import os
import subprocess

from fencedrive.bench import FencedCluster
from lab import net, spec
from lab.cluster import CLI_LIMIT_S

ADMIN_PORT = 7601
#: Who: role. `mallory` is the second name on ann's key.
PEOPLE = {"ann": "approver", "bob": "approver", "vera": "operator"}
SECOND_NAME, FIRST_NAME = "mallory", "ann"
EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
subjectAltName = URI:antipode://{cluster}/operator/{name}?role={role}
"""


class PeopleCluster(FencedCluster):
    """As `FencedCluster`; an override needs two people, and every agent can be asked from afar."""

    #: A sign of life younger than this refuses an override.
    contrary_fresh_s = 8

    def cli(self, host, *words, changes=False, limit=CLI_LIMIT_S):
        """The spec gets its policy on its way to the product."""
        if words[0] == "apply":
            with open(words[1], encoding="utf-8") as f:
                text = f.read()
            policy = f'[cluster]\napprovals = 2\ncontrary_fresh = "{self.contrary_fresh_s}s"\n'
            with open(words[1], "w", encoding="utf-8") as f:
                f.write(text.replace("[cluster]\n", policy, 1))
        return super().cli(host, *words, changes=changes, limit=limit)

    def _certificates(self):
        super()._certificates()
        authority = f"{self.folder}/authority"
        for name, role in PEOPLE.items():
            self._product("pki", "issue", "--dir", authority, "--person", name, "--role", role, "--out", self.identity(name))
        self._second_name(authority)
        for host, box in self.chassis.items():
            with open(box.folders["config"], "a", encoding="utf-8") as f:
                f.write(f'[admin]\nlisten = "{self.addresses[host]}:{ADMIN_PORT}"\n')

    def _second_name(self, authority):
        """A good certificate of the cluster's authority, another name in it, for a key that somebody has already."""
        first, second = self.identity(FIRST_NAME), self.identity(SECOND_NAME)
        os.makedirs(second)
        with open(f"{second}/extensions", "w", encoding="utf-8") as f:
            f.write(EXTENSIONS.format(cluster=spec.CLUSTER, name=SECOND_NAME, role=PEOPLE[FIRST_NAME]))
        request = ["openssl", "req", "-new", "-key", f"{first}/identity.pem", "-subj", f"/CN={SECOND_NAME}"]
        sign = ["openssl", "x509", "-req", "-CA", f"{authority}/root-1.pem", "-CAkey", f"{authority}/root-1.key"]
        sign += ["-set_serial", f"0x50{os.urandom(15).hex()}", "-days", "2", "-extfile", f"{second}/extensions"]
        asked = subprocess.run(request, capture_output=True, check=True).stdout
        certificate = subprocess.run(sign, input=asked, capture_output=True, check=True).stdout
        key = subprocess.run(["openssl", "pkey", "-in", f"{first}/identity.pem"], capture_output=True, check=True).stdout
        with open(os.open(f"{second}/identity.pem", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as f:
            f.write(certificate + key)
        for name in ("ca.pem", "crl.pem"):
            with open(f"{first}/{name}", "rb") as old, open(f"{second}/{name}", "wb") as new:
                new.write(old.read())

    def identity(self, name):
        """The folder of a person's certificate."""
        return f"{self.folder}/people/{name}"

    def _from_afar(self, argv, limit=CLI_LIMIT_S):
        """A program in the client's place: the witness' namespace, from which every agent is reached over the WAN."""
        words = ["ip", "netns", "exec", self.net.netns(spec.WITNESS), *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)

    def ask_as(self, name, host, *words):
        """One command by a person to a host's agent over mutual TLS: (exit status, standard output, standard error)."""
        self.record(kind="command", argv=list(words), host=host, by=name, changes=False)
        reach = ["--host", f"{self.addresses[host]}:{ADMIN_PORT}", "--identity", self.identity(name)]
        done = self._from_afar([self.binary, *words, *reach])
        return done.returncode, done.stdout, done.stderr

    def post_as(self, name, host, path, body):
        """The same request as bytes, past the product's command line: (HTTP status, document)."""
        argv = ["python3", "-m", "fencedrive.post", host, self.addresses[host], str(ADMIN_PORT), self.identity(name)]
        done = self._from_afar(["env", f"PYTHONPATH={net.TESTS}", *argv, path, json.dumps(body)])
        assert done.returncode == 0, f"post: {done.returncode}: {done.stderr}"
        status, _, document = done.stdout.partition("\n")
        return int(status), json.loads(document)

    def unplug_panel(self, host):
        """Nobody reaches a host's panel by the path that the spec has; the lab still does."""
        box = self.chassis[host]
        os.rename(box.panel, f"{box.panel}.away")
        box.panel = f"{box.panel}.away"

    def plug_panel(self, host):
        """Ends that."""
        box = self.chassis[host]
        os.rename(box.panel, box.panel.removesuffix(".away"))
        box.panel = box.panel.removesuffix(".away")

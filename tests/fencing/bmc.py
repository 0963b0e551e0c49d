"""Redfish BMCs by OpenStack's sushy-emulator: in front of a hypervisor's domains, or of machines that it makes up."""

import hashlib
import json
import os
import ssl

from fencing import parts
from fencing.case import PASSWORD, free_port, wait_until, write

FAKE_UUID = "c0ffee00-1111-4222-8333-0000000000a1"
RESET = "Actions/ComputerSystem.Reset"


class Redfish:
    """One emulator with TLS and a password. `uri`: a hypervisor's; without one, its own fake driver."""

    def __init__(self, case, uri=None):
        self.case, self.folder, self.port = case, f"{case.folder}/redfish", free_port()
        venv = parts.sushy()
        os.makedirs(self.folder)
        self.certificate = f"{self.folder}/cert.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{self.folder}/key.pem"]
        argv += ["-out", self.certificate, "-days", "2", "-subj", "/CN=bmc", "-addext", "subjectAltName=IP:127.0.0.1"]
        parts.must(argv)
        code = "import bcrypt,sys;print('admin:'+bcrypt.hashpw(sys.argv[1].encode(),bcrypt.gensalt(4)).decode())"
        write(f"{self.folder}/htpasswd", parts.must([f"{venv}/bin/python", "-c", code, PASSWORD]))
        self.base = f"https://127.0.0.1:{self.port}/redfish/v1/Systems"
        conf = {
            "SUSHY_EMULATOR_LISTEN_IP": "127.0.0.1",
            "SUSHY_EMULATOR_LISTEN_PORT": self.port,
            "SUSHY_EMULATOR_STATE_DIR": self.folder,
            "SUSHY_EMULATOR_AUTH_FILE": f"{self.folder}/htpasswd",
            "SUSHY_EMULATOR_SSL_CERT": self.certificate,
            "SUSHY_EMULATOR_SSL_KEY": f"{self.folder}/key.pem",
        }
        if uri:
            conf["SUSHY_EMULATOR_LIBVIRT_URI"] = uri
        else:
            conf["SUSHY_EMULATOR_FAKE_DRIVER"] = True
            made_up = {"uuid": FAKE_UUID, "name": "made-up", "power_state": "On", "nics": []}
            conf["SUSHY_EMULATOR_FAKE_SYSTEMS"] = [made_up]
        text = "".join(f"{name} = {value!r}\n" for name, value in conf.items())
        argv = [f"{venv}/bin/sushy-emulator", "--config", write(f"{self.folder}/conf", text)]
        case.start("redfish", argv, env={"PYTHONPATH": ""})
        wait_until(lambda: self.curl("").returncode == 0, "the Redfish service answers")

    def curl(self, system, *more):
        """Asks the service by curl, past our code."""
        argv = ["curl", "-sS", "--fail", "--cacert", self.certificate, "-u", f"admin:{PASSWORD}", *more]
        return parts.run([*argv, f"{self.base}/{system}".rstrip("/")])

    def power(self, uuid):
        """A system's power state, as curl reads it."""
        return json.loads(self.curl(uuid).stdout)["PowerState"]

    def switch_on(self, uuid):
        """Switches a system on, past our code, and waits for it."""
        body = ["-X", "POST", "-H", "Content-Type: application/json", "-d", '{"ResetType":"On"}']
        done = self.curl(f"{uuid}/{RESET}", *body)
        self.case.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: self.power(uuid) == "On", "the system is on")

    def device(self, uuid, *more):
        """A system's keys for our kind `redfish`."""
        with open(self.certificate, encoding="ascii") as f:
            pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(f.read())).hexdigest()
        lines = ['name = "bmc"', 'kind = "redfish"', f'url = "{self.base}/{uuid}"', 'user = "admin"']
        lines += [f'password = {{ file = "{self.case.secret}" }}', f'pins = ["sha256:{pin}"]', *more]
        return "\n".join(lines)

    def agent(self, uuid, *more):
        """A system's keys for ClusterLabs' fence_redfish."""
        options = f'ip = "127.0.0.1", ipport = {self.port}, username = "admin", ssl_insecure = true'
        options += f', systems_uri = "/redfish/v1/Systems/{uuid}"'
        lines = ['name = "agent"', 'kind = "fence_agent"', 'agent = "fence_redfish"', 'wired = "the test"']
        lines += [f"options = {{ {options} }}", f'secrets = {{ password = {{ file = "{self.case.secret}" }} }}', *more]
        return "\n".join(lines)

"""A physical machine: a QEMU process, and a BMC (OpenIPMI's ipmi_sim) that can read its power and cut it.

The BMC asks a script of ours for chassis power; that script is the wiring between the BMC and the machine, and can be
told to be stuck. It switches nothing on, so a request to do so is seen as a failure and stays in the script's list.
"""

import os
import signal
import socket

from fencing.case import PASSWORD, free_port, read, wait_until, write
from fencing.parts import run

UUID = "a1234567-89ab-cdef-a123-456789abcdef"

CHASSIS = """#!/bin/sh
# Called by ipmi_sim: "get power boot ...", "set power 0".
cd "{folder}" || exit 1
echo "$*" >> asked
is_on() {{
  pid=$(cat pid) && read -r _ _ state _ 2>/dev/null < "/proc/$pid/stat" || return 1
  case $state in Z|X) return 1;; esac
}}
act=$1; shift
case $act in
get|check)
  for what; do
    case $what in
      power) if is_on; then echo power:1; else echo power:0; fi;;
      boot) echo boot:none;;
      *) echo "$what:0";;
    esac
  done;;
set)
  [ "$1 $2" = "power 0" ] || exit 1
  [ -e stuck ] && exit 0
  is_on && kill -9 "$(cat pid)"
  n=0; while is_on; do n=$((n+1)); [ $n -lt 500 ] || exit 1; sleep 0.01; done;;
esac
"""

LAN = """name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{folder}/chassis"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "admin" "{password}" admin 10 none md2 md5 straight
"""

BMC = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


class Machine:
    """A machine that is on, with its BMC. `case` starts and ends the processes."""

    def __init__(self, case, name="machine"):
        self.case, self.name = case, name
        self.folder, self.port = f"{case.folder}/{name}", free_port(socket.SOCK_DGRAM)
        os.makedirs(f"{self.folder}/state")
        guid = UUID.replace("-", "")
        names = {"folder": self.folder, "port": self.port, "guid": guid, "password": PASSWORD}
        write(f"{self.folder}/chassis", CHASSIS.format(**names), 0o755)
        write(f"{self.folder}/lan.conf", LAN.format(**names))
        write(f"{self.folder}/bmc.emu", BMC)
        self.switch_on()
        argv = ["ipmi_sim", "-c", f"{self.folder}/lan.conf", "-f", f"{self.folder}/bmc.emu"]
        self.bmc = case.start(f"{name}-bmc", [*argv, "-s", f"{self.folder}/state", "-n"])
        wait_until(lambda: self.ipmitool("chassis", "power", "status").returncode == 0, "the BMC answers")

    def switch_on(self):
        """Presses the power button."""
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "32", "-nodefaults", "-no-user-config"]
        self.process = self.case.start(self.name, [*argv, "-display", "none", "-uuid", UUID])
        write(f"{self.folder}/pid", str(self.process.pid))

    def ipmitool(self, *request):
        """Asks the BMC by ipmitool, past our code."""
        argv = ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "3", "-H", "127.0.0.1", "-p", str(self.port)]
        return run([*argv, "-U", "admin", "-P", PASSWORD, *request])

    def is_on(self):
        """What ipmitool reads, held against the process itself."""
        shown = self.ipmitool("chassis", "power", "status").stdout.strip()
        said = {"Chassis Power is on": True, "Chassis Power is off": False}[shown]
        lives = self.process.poll() is None
        self.case.assertEqual(said, lives, "the BMC and the process contradict each other")
        return said

    def asked(self):
        """What the BMC asked of the chassis to change."""
        return [line for line in read(f"{self.folder}/asked").splitlines() if line.startswith("set")]

    def be_stuck(self):
        """From now on the BMC takes orders to switch off, and nothing happens."""
        write(f"{self.folder}/stuck", "")

    def lose_bmc(self):
        """The BMC goes, the machine stays."""
        os.killpg(self.bmc.pid, signal.SIGKILL)
        self.bmc.wait()

    def device(self, *more):
        """Its device's keys for our kind `ipmi`."""
        lines = ['name = "bmc"', 'kind = "ipmi"', 'host = "127.0.0.1"', f"port = {self.port}", 'user = "admin"']
        lines += [f'password = {{ file = "{self.case.secret}" }}', "cipher = 3", *more]
        return "\n".join(lines)

    def agent(self, *more):
        """Its device's keys for ClusterLabs' fence_ipmilan."""
        options = f'ip = "127.0.0.1", ipport = {self.port}, username = "admin", lanplus = true, cipher = 3'
        lines = ['name = "agent"', 'kind = "fence_agent"', 'agent = "fence_ipmilan"', 'wired = "the test"']
        lines += [f"options = {{ {options} }}", f'secrets = {{ password = {{ file = "{self.case.secret}" }} }}', *more]
        return "\n".join(lines)

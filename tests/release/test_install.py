"""Where `make install` puts things, whether systemd takes the units, and whether the reference configuration is read."""

import glob
import os
import re
import subprocess
import tempfile
import unittest

REPO = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TARGET = os.environ.get("TARGET_DIR") or os.path.join(REPO, "target")
#: Any build knows the same verbs and files; the debug one is there whenever the live tests are.
BINARY = os.path.join(TARGET, "debug", "antipode")


def run(*command, **more):
    """Runs a command with a limit; stdout and stderr together."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **more)


class Install(unittest.TestCase):
    """One installation into a scratch folder, looked at by several tests."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.root = cls.scratch.name
        cls.told = run(f"{REPO}/deploy/install", BINARY, cls.root, "/usr")

    def test_everything_lands_where_it_belongs(self):
        self.assertEqual(self.told.returncode, 0, self.told.stdout)
        wanted = [
            "usr/sbin/antipode",
            "lib/systemd/system/antipode-holder.service",
            "lib/systemd/system/antipode-keeper.service",
            "lib/systemd/system/antipode-agent.service",
            "usr/share/man/man1/antipode.1",
            "usr/share/man/man1/antipode-keeper.1",
            "usr/share/bash-completion/completions/antipode",
            "usr/share/doc/antipode/examples/agent.toml",
            "usr/share/doc/antipode/examples/cluster.toml",
            "etc/default/antipode-keeper",
        ]
        missing = [path for path in wanted if not os.path.isfile(f"{self.root}/{path}")]
        self.assertEqual(missing, [])

    def test_a_second_installation_keeps_what_was_configured(self):
        path = f"{self.root}/etc/default/antipode-keeper"
        with open(path, "a", encoding="utf-8") as f:
            f.write("# mine\n")
        self.assertEqual(run(f"{REPO}/deploy/install", BINARY, self.root, "/usr").returncode, 0)
        with open(path, encoding="utf-8") as f:
            self.assertIn("# mine", f.read())

    def test_systemd_takes_the_units(self):
        units = sorted(glob.glob(f"{self.root}/lib/systemd/system/*.service"))
        self.assertEqual(len(units), 3)
        # systemd looks for programs and units in its own root: it is given this one.
        for unit in units:
            with open(unit, encoding="utf-8") as f:
                text = f.read()
            with open(unit, "w", encoding="utf-8") as f:
                f.write(text.replace("/usr/sbin/antipode", f"{self.root}/usr/sbin/antipode"))
        told = run("systemd-analyze", "verify", "--man=no", *units)
        about_ours = [line for line in told.stdout.splitlines() if "antipode" in line]
        self.assertEqual(about_ours, [])
        self.assertEqual(told.returncode, 0, told.stdout)

    def test_a_unit_with_a_mistake_is_not_taken(self):
        path = f"{self.root}/antipode-wrong.service"
        with open(path, "w", encoding="utf-8") as f:
            f.write("[Service]\nExecStart=/nowhere/antipode agent\nRestrat=always\n")
        told = run("systemd-analyze", "verify", "--man=no", path)
        self.assertRegex(told.stdout, "Restrat|not executable")

    def test_the_reference_configuration_is_read_without_a_problem(self):
        for name in ("agent.toml", "cluster.toml"):
            told = run(BINARY, "config", "check", f"{REPO}/deploy/config/{name}")
            self.assertEqual(told.returncode, 0, told.stdout)

    def test_every_verb_has_a_page_that_man_can_show(self):
        pages = glob.glob(f"{self.root}/usr/share/man/man1/*.1")
        self.assertGreater(len(pages), 10)
        told = run("man", "--warnings=all", "-l", f"{self.root}/usr/share/man/man1/antipode.1", env=os.environ | {"MANPAGER": "cat", "MAN_KEEP_STDERR": "1"})
        self.assertEqual(told.returncode, 0, told.stdout)
        self.assertTrue(re.search("failover", told.stdout), told.stdout)


if __name__ == "__main__":
    unittest.main()

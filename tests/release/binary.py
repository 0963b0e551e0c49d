"""The release binary: one static file under 15 MB that starts in an empty root. `make release` builds it first."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

TARGET = os.environ.get("TARGET_DIR") or os.path.join(os.path.dirname(__file__), "..", "..", "target")
BINARY = os.path.join(TARGET, "x86_64-unknown-linux-gnu", "release", "antipode")
BYTES_MAX = 15 * 1000 * 1000


def run(*command, **more):
    """Runs a command with a limit; stdout and stderr together."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **more)


class Release(unittest.TestCase):
    """The file itself."""

    def setUp(self):
        self.assertTrue(os.path.exists(BINARY), f"{BINARY} isn't there: run `make release`")

    def test_it_is_one_static_file_of_less_than_15_mb(self):
        size = os.path.getsize(BINARY)
        self.assertLess(size, BYTES_MAX, f"{size} bytes")
        told = run("ldd", BINARY)
        self.assertRegex(told.stdout, "statically linked|not a dynamic executable")

    def test_it_has_no_planted_faults(self):
        with open(BINARY, "rb") as f:
            content = f.read()
        self.assertNotIn(b"ANTIPODE_MUTANTS", content)

    def test_it_starts_in_an_empty_root(self):
        with tempfile.TemporaryDirectory() as root:
            shutil.copy(BINARY, f"{root}/antipode")
            told = run("chroot", root, "/antipode", "version", "-o", "json")
            self.assertEqual(told.returncode, 0, told.stdout)
            self.assertIn('"version"', told.stdout)

    def test_it_resolves_names_in_an_empty_root(self):
        with tempfile.TemporaryDirectory() as root, socket.create_server(("127.0.0.1", 0)) as there:
            shutil.copy(BINARY, f"{root}/antipode")
            os.mkdir(f"{root}/etc")
            with open(f"{root}/etc/hosts", "w", encoding="utf-8") as f:
                f.write("127.0.0.1 tk-1.example.test\n")
            for words in (
                ("init", "--dir", "/pki", "--cluster", "demo"),
                ("issue", "--dir", "/pki", "--person", "ops", "--role", "viewer", "--out", "/me"),
            ):
                told = run("chroot", root, "/antipode", "pki", *words)
                self.assertEqual(told.returncode, 0, told.stdout)
            there.settimeout(30)
            callers = []

            def answer():
                with there.accept()[0] as caller:
                    callers.append(caller.getpeername()[0])

            server = threading.Thread(target=answer)
            server.start()
            ask = ("/antipode", "status", "--identity", "/me", "--host")
            try:
                told = run("chroot", root, *ask, f"tk-1.example.test:{there.getsockname()[1]}")
            finally:
                server.join()
            self.assertEqual(callers, ["127.0.0.1"], told.stdout)
            self.assertNotEqual(told.returncode, 0, "who hangs up isn't an agent")
            told = run("chroot", root, *ask, "tk-2.example.test:1")
            self.assertRegex(told.stdout, "tk-2.example.test.*(lookup|resol|not known|No address)")


if __name__ == "__main__":
    unittest.main()

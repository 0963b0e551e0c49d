"""The page for newcomers, typed as it stands: each `sh` block is run, each line of the `text` after it must be seen."""

import os
import re
import signal
import subprocess
import tempfile
import unittest

from fencing import parts

PAGE = f"{parts.ROOT}/fencing/docs/writing-a-device.md"


def blocks(text):
    """The page's fenced blocks, in order: (language, content)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


class WritingADevice(unittest.TestCase):
    """A newcomer's ten minutes."""

    def test_the_page_leads_to_a_working_device(self):
        parts.fence()
        with open(PAGE, encoding="utf-8") as f:
            page = blocks(f.read())
        self.assertEqual({language for language, _ in page}, {"sh", "text"})
        # One shell for the whole page, as the reader has; marks tell where each block's output ends.
        typed = [content for language, content in page if language == "sh"]
        script = "exec 2>&1\nset -e\n" + "".join(f"{text}\necho '== {n}'\n" for n, text in enumerate(typed))
        output = self.type(script)
        shown = [re.split(rf"^== {n}$", output, flags=re.M)[0] for n in range(len(typed))]
        number = -1
        compared = 0
        for language, content in page:
            if language == "sh":
                number += 1
                continue
            seen = shown[number].rpartition(f"== {number - 1}\n")[2]
            for line in content.splitlines():
                self.assertIn(line, seen, f"after block {number + 1} of the page")
                compared += 1
        self.assertGreaterEqual(compared, 10, "the page shows what is to be seen")

    def type(self, script):
        """Runs the script in a shell that has to succeed; what it showed. Whatever it left running is ended."""
        env = {**parts.ENV, "CARGO_TARGET_DIR": parts.TARGET}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as shown:
            # Not into a pipe: the machine of the page would hold that open.
            shell = subprocess.Popen(
                ["bash", "-c", script], cwd=parts.ROOT, env=env, stdout=shown, stderr=shown, start_new_session=True
            )
            try:
                code = shell.wait(600)
            finally:
                try:
                    os.killpg(shell.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                shell.wait()
            shown.seek(0)
            output = shown.read()
        self.assertEqual(code, 0, output)
        return output

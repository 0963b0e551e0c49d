"""Fuzzes every target for a while: builds, plants a fault and finds it, runs, prints a table; fails at a finding.

Usage: python -m fuzz.run [--minutes M] [--jobs J] [--target NAME]...

The corpora stay in the target directory and grow from run to run; what was found is beside them.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TARGET = Path(os.environ.get("TARGET_DIR", HERE.parent.parent / "target"))
HOME = TARGET / "fuzz"
LIMITS = ["-timeout=20", "-rss_limit_mb=1500", "-max_len=32768", "-print_final_stats=1"]
PLANTED_SECONDS = 120


@dataclass
class Result:
    """How one target's run ended."""

    target: str
    executions: int
    begun: int
    edges: int
    seconds: float
    found: bool
    log: Path

    def line(self) -> str:
        """A row of the table."""
        word = "FOUND" if self.found else "nothing"
        return f"| {self.target} | {self.executions} | {self.begun} → {self.edges} | {self.seconds:.0f} s | {word} |"


def build() -> Path:
    """The fuzzer. What is ours is instrumented; dependencies are those of the product's own builds."""
    env = os.environ | {"CARGO_TARGET_DIR": str(TARGET), "RUSTC_WRAPPER": str(HERE / "rustc")}
    subprocess.run(["cargo", "build", "--locked"], cwd=HERE, env=env, check=True)
    return TARGET / "debug" / "antipode-fuzz"


def listed(fuzzer: Path) -> list[str]:
    """All targets."""
    shown = subprocess.run([fuzzer], env=os.environ | {"FUZZ_LIST": "1"}, check=True, capture_output=True, text=True)
    return shown.stdout.split()


def run(fuzzer: Path, target: str, seconds: float) -> Result:
    """Runs one target."""
    corpus, seeds, found = (HOME / folder / target for folder in ("corpus", "seeds", "found"))
    for folder in (corpus, seeds, found):
        folder.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"FUZZ_TARGET": target, "RUST_BACKTRACE": "0"}
    subprocess.run([fuzzer], env=env | {"FUZZ_SEEDS": str(seeds)}, check=True, capture_output=True)
    log = HOME / f"{target}.log"
    begun = time.monotonic()
    with log.open("wb") as out:
        arguments = [*LIMITS, f"-max_total_time={seconds:.0f}", f"-artifact_prefix={found}/", corpus, seeds]
        ended = subprocess.run([fuzzer, *arguments], env=env, stdout=out, stderr=out, check=False)
    text = log.read_text(errors="replace")
    edges = [int(edges) for edges in re.findall(r"cov: (\d+)", text)] or [0]
    executions = re.search(r"number_of_executed_units:\s*(\d+)", text)
    last = re.findall(r"^#(\d+)", text, re.MULTILINE) or ["0"]
    return Result(
        target, int(executions.group(1) if executions else last[-1]), edges[0], edges[-1],
        time.monotonic() - begun, ended.returncode != 0, log,
    )


def finds_the_planted(fuzzer: Path) -> bool:
    """Whether this fuzzer is led by coverage at all: a fault that chance doesn't find."""
    for leftover in (HOME / "corpus" / "planted").glob("*"):
        leftover.unlink()
    result = run(fuzzer, "planted", PLANTED_SECONDS)
    print(f"planted fault {'found' if result.found else 'NOT FOUND'} after {result.executions} executions", flush=True)
    return result.found and "the planted fault" in result.log.read_text(errors="replace")


def main() -> int:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--target", action="append", default=[])
    given = parser.parse_args()
    fuzzer = build()
    targets = given.target or listed(fuzzer)
    if not finds_the_planted(fuzzer):
        return 1
    print("| target | executions | edges, first → last | time | found |\n|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        results = []
        for result in pool.map(lambda target: run(fuzzer, target, given.minutes * 60), targets):
            print(result.line(), flush=True)
            results.append(result)
    for result in (result for result in results if result.found):
        print(f"\n{result.target}: {HOME / 'found' / result.target}", *result.log.read_text(errors="replace").splitlines()[-40:], sep="\n")
    return 1 if any(result.found for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

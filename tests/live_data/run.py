"""Plays the cases about data on the live stage.

    python3 -m live_data.run [--only NAME,NAME] [--folder F] [--prefix P]

Judged and repeated as `live.run` does it: never two, valid runs only. Exit status: 0 all passed · 1 one failed · 3 none
failed, but one could not be told.
"""

import argparse
import os
import sys

from lab import net
from live.case import CASES
from live.run import Runner
from live_data import cases


def main():
    """Parses and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME,NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--prefix", default="ldata")
    parser.add_argument("--folder", default=f"{os.path.dirname(net.TESTS)}/target/live-data")
    options = parser.parse_args()
    options.folder = os.path.abspath(options.folder)
    mine = {name: case for name, case in CASES.items() if case.story.__module__ == cases.__name__}
    names = options.only.split(",") if options.only else list(mine)
    unknown = [name for name in names if name not in mine]
    if unknown:
        sys.exit(f"no case {', '.join(unknown)}; see --list")
    if options.list:
        for name in names:
            print(f"{name:36} {mine[name].claim}")
        return 0
    os.makedirs(options.folder, exist_ok=True)
    return Runner(options).run([mine[name] for name in names])


if __name__ == "__main__":
    sys.exit(main())

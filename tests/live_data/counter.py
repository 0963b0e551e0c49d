"""A workload that counts on its volume: what a takeover finds there says what was lost, and whether it is torn.

    counter.py VOLUME OUT

The volume is a ring of slots after a header. A number goes into its slot, is forced, and only then into the header: a
volume whose header has a number without its slot was never on any disk like that. Each number is told in OUT once it is
on disk, with CLOCK_MONOTONIC nanoseconds.
"""

import json
import os
import struct
import sys
import time

SLOTS, WIDTH, START = 1024, 512, 4096


def slot_of(volume, count):
    """What a number's slot holds."""
    return struct.unpack("<Q", os.pread(volume, 8, START + count % SLOTS * WIDTH))[0]


def main():
    """Counts until it is ended."""
    volume = os.open(sys.argv[1], os.O_RDWR)
    count = struct.unpack("<Q", os.pread(volume, 8, 0))[0]
    with open(sys.argv[2], "a", encoding="utf-8") as out:

        def tell(**words):
            out.write(json.dumps({"t_ns": time.monotonic_ns(), "epoch": int(os.environ["ANTIPODE_EPOCH"]), **words}) + "\n")
            out.flush()

        torn = [n for n in range(max(1, count - SLOTS + 2), count + 1) if slot_of(volume, n) != n]
        tell(found=count, torn=torn[:5])
        while True:
            count += 1
            os.pwrite(volume, struct.pack("<Q", count), START + count % SLOTS * WIDTH)
            os.fsync(volume)
            os.pwrite(volume, struct.pack("<Q", count), 0)
            os.fsync(volume)
            tell(count=count)
            # Where there are no reflinks, a round needs the volume to stand still for two readings.
            time.sleep(0.25)


if __name__ == "__main__":
    main()

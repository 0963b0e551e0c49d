"""Never two: what the observer's stamps say about who lived when, for the demonstration's judge and every live test.

An instance is one guest boot. Its life is what lies between its first and its last stamp, on the observer's clock; two
lives must not overlap, whatever host, epoch or excuse. A life can only be told from enough stamps: where fewer than 80 % of
those due arrived while the instance served, the answer is "can't tell", never "fine".
"""

TICK_NS = 10_000_000
SHARE_MIN = 0.8
#: An observer that stalled this close to a life's beginning or end can't order it against another.
NEAR_NS = 1_000_000_000


def stamps(records):
    """The stamps among an observer's records."""
    return [r for r in records if r["kind"] == "stamp" and r.get("guest_boot")]


def lives(found):
    """(first, last) stamp of each instance, by boot id."""
    span = {}
    for s in found:
        low, high = span.get(s["guest_boot"], (s["t_ns"], s["t_ns"]))
        span[s["guest_boot"]] = (min(low, s["t_ns"]), max(high, s["t_ns"]))
    return span


def overlapping(found):
    """The stamps that lie inside another instance's life."""
    span = lives(found)
    return [
        s
        for s in found
        if any(boot != s["guest_boot"] and low <= s["t_ns"] <= high for boot, (low, high) in span.items())
    ]


def count_and_due(found, epoch, since_ns, until_ns):
    """How many stamps of an epoch came between two moments at which it served, and how many were due."""
    seen = sum(1 for s in found if s["epoch"] == epoch and since_ns <= s["t_ns"] <= until_ns)
    return seen, (until_ns - since_ns) // TICK_NS


def is_enough(seen, due):
    """Whether a life can be told from this many stamps."""
    return seen > 0 and seen >= SHARE_MIN * due


def blind_ms(records):
    """How long, in ms, the observer itself stood still at the beginning or end of some life; empty when it didn't."""
    edges = [edge for life in lives(stamps(records)).values() for edge in life]
    stalls = [r for r in records if r["kind"] == "stall"]
    near = [r for r in stalls if any(r["since_ns"] - NEAR_NS <= e <= r["t_ns"] + NEAR_NS for e in edges)]
    return [(r["t_ns"] - r["since_ns"]) / 1e6 for r in near]

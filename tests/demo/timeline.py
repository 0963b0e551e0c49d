"""The report as a page that a manager understands: what happened when, and what the protocol promised."""

import json

STEPS = (
    ("suspected_ms", "silence noticed by a majority"),
    ("declared_ms", "tokyo declared lost by the quorum"),
    ("fenced_ms", "proven: tokyo can do no more harm"),
    ("granted_ms", "osaka has the right to run the machine"),
    ("serving_ms", "customers served again, same address"),
)


def _seconds(ms):
    return "   -   " if ms is None else f"{ms / 1000:6.2f} s"


def _epoch(number):
    """An epoch as `antipode status` shows it: the count, with the quorum's era before it when that isn't the first."""
    era, count = divmod(int(number), 1 << 48)
    return f"{era}.{count}" if era > 1 else str(count)


def _outside(report, name):
    found = [o["why"] for o in report["expected"].get("outside", []) if o["figure"] == name]
    return f"  <- {found[0]} (load {_load(report)})" if found else ""


def _load(report):
    loads = [r["loadavg"][0] for r in report.get("load", []) if r["at"] == "kill"]
    return f"{loads[0]:.1f}" if loads else "?"


def text(path):
    """The timeline of one report."""
    with open(path, encoding="utf-8") as f:
        r = json.load(f)
    lines = ["", "THE DAY TOKYO DIED                                    measured     the protocol expects"]
    lines.append("   tokyo loses power, everything at one instant         0.00 s")
    for name, words in STEPS:
        low, high = r["expected"][name]
        lines.append(f"   {words:<50} {_seconds(r[name])}     {low / 1000:.2f} to {high / 1000:.2f} s{_outside(r, name)}")
    proofs = [f"{e['host']} epoch {_epoch(e['host_epoch'])}: {e['kind']}{' (lab)' if e['lab'] else ''}" for e in r["evidence"]]
    proof = ", ".join(proofs)
    back, sync = r["failback"], r["resync"]
    lines += ["", f"   proof in the log                {proof or 'none'}"]
    lines.append(f"   way home                        {'by itself' if back['automatic'] else 'NOT by itself'}, "
                 f"{back['operator_commands']} commands, gap {_seconds(back['gap_ms']).strip()}")  # fmt: skip
    lines.append(f"   resync                          {_bytes(sync['compared_bytes'])} compared, "
                 f"{_bytes(sync['differing_bytes'])} differed, {_bytes(sync['copied_bytes'])} copied")  # fmt: skip
    lines.append(f"   answered requests               {r['acknowledged_writes']}, lost {r['acknowledged_writes_lost']}, "
                 f"answered twice {r['duplicate_answers']}")  # fmt: skip
    stamps = ", ".join(f"epoch {_epoch(e)}: {n} of {r['stamps']['due'][e]}" for e, n in r["stamps"]["by_epoch"].items())
    lines.append(f"   signs of life                   {stamps}; two at one time: {r['overlap_samples']}")
    lines += [f"   DOESN'T HOLD: {p}" for p in r["problems"]] + [f"   can't tell: {p}" for p in r["invalid"]]
    lines.append(f"\n   {r['verdict'].upper()}   report: {path}")
    return "\n".join(lines)


def _bytes(n):
    if n is None:
        return "?"
    return f"{n / 1048576:.1f} MiB" if n >= 1048576 else f"{n / 1024:.0f} KiB"

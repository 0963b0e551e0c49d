"""What the protocol promises for each figure of the demonstration, as an interval from the parameters in force.

All in milliseconds after the kill. Written from the protocol's text, not from the product: Δ is how often a beat is sent,
T_D the silence after which an observer suspects, R how often a lease is renewed, L the lease, ρ the drift, δ_io the
last I/O, d the one-way delay. The last beat and the last grant before the kill left up to Δ (R) earlier, which is what
makes each figure an interval. Upper ends hold on a quiet machine; `SLACK` is what fsync and scheduling may add there.
"""

import math

#: fsync of a voter and one turn of each process on the way, per commit.
SLACK_PER_COMMIT_MS = 30.0
#: From power on to the first answer, under emulation, on a quiet machine: firmware and kernel, disk, port open.
BOOT_MS = (1500.0, 4500.0)
REQUIRED = ("beat", "detection", "renewal", "lease", "rho_ppm", "delta_io", "one_way")


def voter_wait(timing):
    """L_v = L·(1+ρ)/(1−ρ) + δ_io."""
    rho = timing["rho_ppm"] / 1e6
    return timing["lease"] * (1 + rho) / (1 - rho) + timing["delta_io"]


def lease_is_sound(timing):
    """L ≥ 2·W + δ_hw + P + (r+1)·R + RTT_max + J, recomputed: a product that printed a weaker lease is caught here."""
    needs = 2 * timing["watchdog_worst"] + timing["delta_hw"] + timing["keeper_period"]
    needs += (timing["lost_renewals"] + 1) * timing["renewal"] + timing["rtt_max"] + timing["jitter"]
    return timing["lease"] >= needs - 1e-6


def intervals(timing):
    """{figure: [earliest, latest]} for an eager declaration with the leader outside the lost site."""
    d = timing["one_way"]
    # The last beat left at kill − x with x in [0, Δ]. T_D has the delay in it: at most, and so at the earliest, silence is
    # counted from when that beat left; at the latest from when it came.
    suspected = (timing["detection"] - timing["beat"], timing["detection"] + d + timing["jitter"])
    # The other voter's report reaches the leader (d), then one commit (2·d).
    declared = (suspected[0] + 2 * d, suspected[1] + 3 * d + SLACK_PER_COMMIT_MS)
    # Each voter's own last grant was at kill − x + d with x in [0, R]; its report travels d, and is committed.
    wait = voter_wait(timing)
    fenced = (wait - timing["renewal"] + d, wait + d + 3 * d + 2 * SLACK_PER_COMMIT_MS)
    granted = (fenced[0], fenced[1] + 2 * d + SLACK_PER_COMMIT_MS)
    serving = (granted[0] + BOOT_MS[0], granted[1] + BOOT_MS[1])
    named = {"suspected_ms": suspected, "declared_ms": declared, "fenced_ms": fenced, "granted_ms": granted}
    named["serving_ms"] = serving
    return {name: [math.floor(low), math.ceil(high)] for name, (low, high) in named.items()}

"""Cases in which all power is lost and comes back in some order."""

import itertools

from lab import net
from live.case import case
from live.stage import AWAY

#: Between one site's return and the next one's.
BETWEEN_S = 5.0


def power_story(order):
    """All dark at one instant, then one site after the other."""

    def story(s):
        c = s.cluster
        at = c.power_off(*c.hosts)
        for n, site in enumerate(order):
            c.power_on(*c.at(site))
            if n == 0:
                alone = lambda: not s.boots(since=at + 10**9)  # noqa: E731
                s.hold(alone, BETWEEN_S, f"something was started by {site} alone")
            elif n == 1:
                s.last(BETWEEN_S)
        s.healthy()

    story.__doc__ = f"All power lost, and back in the order {', '.join(order)}: nothing starts without a majority."
    return story


for _order in itertools.permutations(net.SITES):
    case("power-" + "-".join(_order), quick=_order[0] == AWAY and _order[1] == "tokyo")(power_story(_order))

"""Cases in which only the network is at fault."""

from live.case import case
from live.stage import AWAY, HOME, WITNESS

#: Longer than any lease, election and detachment.
CUT_S = 12.0


def untouched(s, before, what):
    """The same guest still serves, and nobody was declared."""
    s.need(s.boots() <= before, f"{what}: the guest was started anew")
    s.need(not s.declared(), f"{what}: declared were {s.declared()}")


def detached_and_healed(s, what):
    """While the fault lasts the mirror is given up and the guest goes on; afterwards the pair heals."""
    before = s.boots()
    s.wait(lambda: not s.cluster.is_in_sync(), f"{what}: the mirror is detached", 40)
    s.served_at(HOME, s.now(), limit=30)
    s.last(CUT_S)
    untouched(s, before, what)
    s.cluster.net.heal()
    s.healthy()
    untouched(s, before, what)


@case("pair-cut", quick=True)
def pair_cut(s):
    """Home and standby don't reach each other, the witness sees both: no failover, the mirror detaches, the pair heals."""
    s.cluster.net.cut(HOME, AWAY, nets=("wan",))
    detached_and_healed(s, "pair cut")


@case("pair-cut-one-way-out")
def pair_cut_out(s):
    """Nothing of home reaches the standby; the other way is whole."""
    s.cluster.net.cut(HOME, AWAY, oneway=True, nets=("wan",))
    detached_and_healed(s, "one way, home to standby")


@case("pair-cut-one-way-in")
def pair_cut_in(s):
    """Nothing of the standby reaches home; the other way is whole."""
    s.cluster.net.cut(AWAY, HOME, oneway=True, nets=("wan",))
    detached_and_healed(s, "one way, standby to home")


def one_way(s, outwards):
    """All paths of home cut in one direction. Either nothing changes or it is taken over; then all is well again."""
    for other in (AWAY, WITNESS):
        pair = (HOME, other) if outwards else (other, HOME)
        s.cluster.net.cut(*pair, oneway=True, nets=("wan",))
    s.served_at(AWAY, s.now(), limit=120)
    s.cluster.net.heal()
    s.healthy()


@case("home-mute")
def home_mute(s):
    """Home hears everybody and nobody hears home: no lease reaches it, it is taken over."""
    one_way(s, outwards=True)


@case("home-deaf")
def home_deaf(s):
    """Everybody hears home and home hears nobody: its lease ends all the same, and the group isn't down for ever."""
    one_way(s, outwards=False)


def lossy(s, span_s):
    """30 % loss and 200 ms jitter on the path between home and standby, then as much loss as a suspicion takes."""
    before = s.boots()
    s.cluster.net.shape(HOME, AWAY, nets=("wan",), jitter_ms=200, loss=0.3)
    s.hold(lambda: s.boots(since=s.now() - 10**9) <= before, span_s, "the guest was started anew")
    # Jitter puts off by some 100 ms when a beat is expected: nine or more in a row are silence then. At 30 % loss chance
    # brings that once in a quarter of an hour (one minute to never within fifteen, seen), at 60 % once in a few seconds.
    aroused = lambda: [e for e in s.events("suspect") if e["at"] in s.cluster.at(HOME, AWAY)]  # noqa: E731
    s.figure("suspicions_by_chance", len(aroused()))
    s.cluster.net.shape(HOME, AWAY, nets=("wan",), jitter_ms=200, loss=0.6)
    suspicions = s.wait(aroused, "60 % loss and 200 ms of jitter arouse a suspicion", 300)
    s.figure("suspicions", len(suspicions))
    untouched(s, before, "lossy path")
    s.cluster.net.heal()
    s.healthy()
    untouched(s, before, "lossy path")


@case("lossy-path", quick=True)
def lossy_path(s):
    """45 s of 30 % loss and 200 ms jitter between the sites, then 60 %: suspicions, and no declaration."""
    lossy(s, 45.0)


@case("lossy-path-5-min", long=True)
def lossy_path_long(s):
    """Five minutes of the same."""
    lossy(s, 300.0)

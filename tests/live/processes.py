"""Cases in which the product's own processes die or stand still on a host that is otherwise well."""

from live.case import case
from live.stage import AWAY, HOME, MS


#: These cases are about slack, so nothing may be declared before it is used up.
LAZY = {"declare": "lazy"}


def home(s):
    """(name, chassis) of the home site's host."""
    host = s.cluster.at(HOME)[0]
    return host, s.cluster.chassis[host]


def slack_s(s):
    """How long the keeper rides through without a word of the agent: T_tol."""
    t = s.timing
    return (t["lease"] - 2 * t["watchdog_worst"] - t["delta_hw"] - t["keeper_period"]) / 1000


def lived(s, before, hosts, since):
    """Waits until another guest lives on one of these hosts."""
    fresh = lambda: [x for x in s.stamps(since) if x["guest_boot"] not in before and x["host"] in hosts]  # noqa: E731
    s.wait(fresh, "the guest is started anew", 90)


@case("agent-killed-within-slack", LAZY, quick=True)
def agent_killed_within(s):
    """The agent is killed and started again at once: the guest doesn't notice."""
    before, (host, box) = s.boots(), home(s)
    started = len(s.events("agent-started"))
    box.order("signal agent KILL")
    s.wait(lambda: len(s.events("agent-started")) > started, "another agent runs", 30)
    s.last(2 * slack_s(s))
    s.healthy()
    s.need(s.boots() == before, "the guest was touched")
    s.need(not s.declared() and not s.hardware("reset", host), "the host was declared or reset")


@case("agent-killed-beyond-slack", LAZY)
def agent_killed_beyond(s):
    """The agent stays away: its guest is ended and taken over, its host isn't reset."""
    before, (host, box) = s.boots(), home(s)
    box.order("stop agent")
    at = s.now()
    box.order("signal agent KILL")
    s.served_at(AWAY, at)
    s.need(not [x for x in s.stamps(s.now() - 500 * MS) if x["guest_boot"] in before], "the old guest lives")
    s.need(not s.hardware("reset", host), "the host was reset: its keeper had to suffice")
    box.order("start agent")
    s.healthy()
    s.need(not s.hardware("reset", host), "the host was reset on the way back")


def stopped(s, slacks):
    """SIGSTOP for that many slacks, then SIGCONT."""
    host, box = home(s)
    box.order("signal agent STOP")
    s.last(slacks * slack_s(s))
    box.order("signal agent CONT")
    return host


@case("agent-stopped-half-slack", LAZY)
def agent_stopped_half(s):
    """An agent that stands still for half the slack costs nothing."""
    before = s.boots()
    host = stopped(s, 0.5)
    s.healthy()
    s.need(s.boots() == before, "the guest was touched")
    s.need(not s.declared() and not s.hardware("reset", host), "the host was declared or reset")


@case("agent-stopped-one-slack", LAZY)
def agent_stopped_one(s):
    """Exactly the slack: whatever comes of it, never two, and all is well again."""
    stopped(s, 1.0)
    s.healthy()


@case("agent-stopped-three-slacks", LAZY)
def agent_stopped_three(s):
    """An agent that wakes long after its time finds its guest ended, and neither kills nor starts anything wrongly."""
    before = s.boots()
    host = stopped(s, 3.0)
    s.healthy()
    s.need(not s.hardware("reset", host), "the host was reset: its keeper had to suffice")
    s.need(not (s.boots(since=s.now() - 2000 * MS) & before), "the guest outlived its lease")


@case("keeper-killed-for-good", LAZY)
def keeper_killed(s):
    """Without a keeper the watchdog resets the host within W, and all comes back."""
    before, (host, box) = s.boots(), home(s)
    box.order("stop keeper")
    at = s.now()
    box.order("signal keeper KILL")
    reset = s.wait(lambda: s.hardware("reset", host, at), f"{host} is reset", 30)[0]
    s.figure("reset_after_pet_ms", reset["after_last_pet_ms"])
    worst = s.timing["watchdog_worst"]
    s.need(reset["after_last_pet_ms"] - reset["kill_took_ms"] <= worst, f"reset later than W: {reset}")
    lived(s, before, s.cluster.hosts, at)
    s.healthy()


@case("keeper-restarted", LAZY, quick=True)
def keeper_restarted(s):
    """A keeper that is back in time ends the protected slice, attests it, and the host isn't reset."""
    before, (host, box) = s.boots(), home(s)
    at = s.now()
    box.order("signal keeper KILL")
    s.wait(lambda: "released" in s.evidence(host, at), "the keeper's attestation is in the log", 60)
    lived(s, before, [host], at)
    s.healthy()
    s.need(not (s.boots(since=s.now() - 2000 * MS) & before), "the guest outlived its keeper")
    s.need(not s.hardware("reset", host), "the host was reset")
    s.need(not s.declared(), f"declared were {s.declared()}: a restart in place is no loss")

"""Cases in which a whole site is gone: killed, cut off but alive, gone again on the way home."""

from lab import chassis
from live.case import case
from live.stage import AWAY, HOME, MS, S, WITNESS

#: Nothing is to happen for this long where nothing may happen.
CALM_S = 12.0


def kill_home(s):
    """Power off for everything of the home site; the instant."""
    return s.cluster.power_off(*s.cluster.at(HOME))


def taken_over(s, since):
    """The home site was declared, proven by its lease, and the guest serves at the other site."""
    s.served_at(AWAY, since)
    home = s.cluster.at(HOME)
    s.need(s.declared(since) == home, f"declared were {s.declared(since)}, not {home}")
    s.need("self-fenced" in s.evidence(home[0], since), f"evidence was {s.evidence(home[0], since)}")


@case("site-killed", quick=True)
def site_killed(s):
    """Everything of the home site is killed while the witness leads: takeover, and home again by itself."""
    at = kill_home(s)
    taken_over(s, at)
    s.figure("outage_ms", s.outage_ms(at))
    s.cluster.power_on(*s.cluster.at(HOME))
    s.healthy()


@case("site-killed-with-leader")
def site_killed_with_leader(s):
    """The leader dies with the site whose loss has to be declared."""
    host = s.cluster.at(HOME)[0]
    s.cluster.cli(s.cluster.leader()[0], "quorum", "transfer", host, changes=True)
    s.wait(lambda: s.cluster.leader()[0] == host, f"{host} leads", 20)
    at = kill_home(s)
    taken_over(s, at)
    s.cluster.power_on(host)
    s.healthy()


def cut_off(s, nets):
    """Cuts the home site off, waits for the takeover, and looks at what became of the old side."""
    host, before = s.cluster.at(HOME)[0], s.boots(HOME)
    at = s.cluster.net.isolate(HOME, nets=nets)
    taken_over(s, at)
    lived = [x["t_ns"] for x in s.stamps(at) if x["guest_boot"] in before]
    killed_ms = (max(lived) - at) / MS if lived else 0.0
    s.figure("old_side_lived_ms", killed_ms)
    lease = s.timing["lease"]
    s.need(killed_ms <= lease, f"the old side's guest lived {killed_ms:.0f} ms after the cut; its lease is {lease:.0f}")
    return host, at


@case("cut-off-alive", quick=True)
def cut_off_alive(s):
    """The site lives, but nobody hears it: its keeper ends the guest within the lease, then it is taken over."""
    host, at = cut_off(s, ("wan", "seg"))
    s.need(not s.hardware("reset", host, at), f"{host} was reset: its keeper had to suffice")
    s.cluster.net.heal()
    s.healthy()


@case("cut-off-still-reached-by-client")
def cut_off_still_reached(s):
    """Only the agents' network is cut: the client reaches the old side as long as it lives."""
    host, at = cut_off(s, ("wan",))
    s.need(not s.hardware("reset", host, at), f"{host} was reset: its keeper had to suffice")
    s.cluster.net.heal()
    s.healthy()


@case("cut-off-stubborn-guest", {"append": "antipode.stubborn=1"})
def cut_off_stubborn(s):
    """The workload ignores every polite request to end: it is ended all the same, within the lease."""
    cut_off(s, ("wan", "seg"))
    s.cluster.net.heal()
    s.wait(lambda: s.group().get("site") == AWAY and s.cluster.is_in_sync(), f"mirrored from {AWAY}", 120)


#: W of 22 s, so that a keeper that hangs leaves its guest running for longer than any guest takes to boot.
SLOW_DOG = {"watchdog_ms": 20_000}
SLOW = {"watchdog_worst": "22s"}


def hang_and_cut_off(s):
    """The keeper hangs and the site is cut off at one moment: only the watchdog is left. The host and the instant."""
    host = s.cluster.at(HOME)[0]
    chassis.orders([s.cluster.chassis[host]], "signal keeper STOP")
    return host, s.cluster.net.isolate(HOME)


@case("cut-off-keeper-hung", SLOW, hardware=SLOW_DOG)
def cut_off_keeper_hung(s):
    """With the keeper hung the watchdog resets the host, and only then is the guest taken over."""
    host, at = hang_and_cut_off(s)
    reset = s.wait(lambda: s.hardware("reset", host, at), f"{host} is reset by its watchdog", 60)[0]
    s.figure("reset_after_pet_ms", reset["after_last_pet_ms"])
    s.served_at(AWAY, at, limit=150)
    s.cluster.net.heal()
    s.healthy()


@case("control-grants-without-evidence", SLOW, hardware=SLOW_DOG | {"mutants": "ledger.grant_without_evidence"},
      overlap_wanted=True, last=True, quick=True)  # fmt: skip
def control_without_evidence(s):
    """NEGATIVE CONTROL: a build that grants without evidence shows two instances in the same case."""
    _, at = hang_and_cut_off(s)
    s.wait(lambda: s.boots(AWAY, at), f"the guest lives at {AWAY}", 90)
    s.last(2.0)


@case("control-no-announcement", {"announce": False}, last=True)
def control_no_announcement(s):
    """NEGATIVE CONTROL: without an announcement the client misses the service for longer than any takeover took."""
    at = kill_home(s)
    s.wait(lambda: s.boots(AWAY, at), f"the guest lives at {AWAY}", 60)
    lives = min(x["t_ns"] for x in s.stamps(at) if x["host"] in s.cluster.at(AWAY))
    s.served_at(AWAY, at, limit=180, times=1)
    deaf_ms = s.outage_ms(at) - (lives - at) / MS
    s.figure("deaf_ms", deaf_ms)
    s.need(deaf_ms > 3_000, f"found again {deaf_ms:.0f} ms after it lived: nothing shows that announcing matters")


@case("home-fails-during-failback")
def home_fails_during_failback(s):
    """The home site dies again while the guest is on its way there."""
    at = kill_home(s)
    taken_over(s, at)
    s.cluster.power_on(*s.cluster.at(HOME))
    s.wait(lambda: [e for e in s.events("plan-opened", at) if s.is_failback(e)], "the way home begins", 150)
    again = kill_home(s)
    s.served_at(AWAY, again + S, limit=120)
    s.cluster.power_on(*s.cluster.at(HOME))
    s.healthy()


@case("home-fails-right-after-failback")
def home_fails_after_failback(s):
    """The home site dies just after the guest got there, before its writes are mirrored: no answered write is lost."""
    at = kill_home(s)
    taken_over(s, at)
    s.cluster.power_on(*s.cluster.at(HOME))
    s.served_at(HOME, s.now(), limit=150, times=3)
    again = kill_home(s)
    s.last(CALM_S)
    s.figure("answers_meanwhile", len(s.answers(again + S)))
    s.cluster.power_on(*s.cluster.at(HOME))
    s.healthy()


@case("approve-waits", {"tier": "approve"}, last=True)
def approve_waits(s):
    """A group of tier `approve` is proven dead, waits for a person, names the command, and goes when told."""
    at = kill_home(s)
    witness = s.cluster.at(WITNESS)[0]
    s.wait(lambda: s.evidence(s.cluster.at(HOME)[0], at), "the home site is proven dead", 60)
    plan = s.wait(lambda: _waiting_plan(s, witness), "the plan names the person's command", 30)
    s.hold(lambda: not s.boots(AWAY), CALM_S, "the guest was started without a person's word")
    s.cluster.cli(witness, *plan["next"].split()[1:], "--reason", "live test", changes=True)
    s.served_at(AWAY, at)


def _waiting_plan(s, host):
    plans = (s.cluster.status(host) or {}).get("plans", [])
    return next((p for p in plans if p["next"].startswith("antipode approve")), None)


@case("witness-lost-then-site", last=True)
def witness_lost_then_site(s):
    """Without the witness all runs on and says what that means; a site lost then stops everything, and says the way out."""
    witness, away = s.cluster.at(WITNESS)[0], s.cluster.at(AWAY)[0]
    before = s.boots(HOME)
    s.cluster.power_off(witness)
    suspended = lambda: s.group(away).get("automatic_failover", {}).get("possible") is False  # noqa: E731
    s.wait(suspended, "automatic failover is said to be suspended", 30)
    s.hold(lambda: s.boots() <= before, CALM_S, "the guest didn't run on")
    at = kill_home(s)
    s.hold(lambda: not s.boots(AWAY), CALM_S + 8, "something was started by a minority")
    shown = s.wait(lambda: s.cluster.status(away), "osaka's agent answers", 20)
    next_commands = [line["next"] for line in shown["attention"]]
    s.need(any("quorum recover" in text for text in next_commands), f"no way out is named: {next_commands}")
    s.need(not s.answers(at + 2 * S), "somebody still answers")

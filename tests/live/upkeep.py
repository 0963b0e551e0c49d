"""Upkeep, live: what people do to a cluster that is well, while a guest runs.

    python3 -m live.upkeep [--quick | --only NAME,NAME] [--list] [--folder F] [--prefix P]

Agents and keepers restarted, releases upgraded host by host with two programs, a group pinned through work on the network,
a host that flaps or is removed, and forecasts beside what then comes. Every case ends with the judge: never two, one host an
epoch, no acknowledged write lost, enough stamps.
"""

import sys

from live import releases, run, upkeep_hosts
from live.case import CASES, case
from live.stage import AWAY, HOME, S, WITNESS
from live.voters import attention, handed_to, untouched

MINE = {__name__, upkeep_hosts.__name__}
#: Nothing is to happen for this long where nothing may happen: longer than a lease.
CALM_S = 8.0


def admissions(s):
    """{host: (state, host epoch)} as the witness sees it."""
    shown = s.cluster.status(s.cluster.at(WITNESS)[0]) or {}
    return {h["name"]: (h["state"], h["host_epoch"]) for h in shown.get("hosts", [])}


def unnoticed(s, before, hosts):
    """The same guest lives, every host goes on under the admission it had, and no hardware had to act."""
    s.need(s.boots() == before, f"the guest was touched: boots {s.boots()}")
    s.wait(lambda: admissions(s) == hosts, f"all are admitted as before: {hosts}", 30)
    s.need(not s.declared(), f"declared were {s.declared()}")
    resets = [h for h in s.cluster.hosts if s.hardware("reset", h) or s.hardware("closed", h)]
    s.need(not resets, f"the hardware of {resets} acted, or its watchdog was let go")


def paused_ms(s, since):
    """The longest that the client waited for an answer."""
    times = sorted(a["done_ns"] for a in s.answers(since))
    return max((later - earlier for earlier, later in zip(times, times[1:])), default=0) / 1e6


# ---- restarts and upgrades


@case("rolling-restart", {"declare": "lazy"}, quick=True)
def rolling_restart(s):
    """Keeper and agent of every host are restarted, one host after the other: the guest doesn't notice."""
    before, hosts, at = s.boots(), admissions(s), s.now()
    for host in s.cluster.at(AWAY, HOME, WITNESS):
        releases.keeper_reloaded(s, host)
        releases.agent_restarted(s, host)
        s.healthy()
        unnoticed(s, before, hosts)
    s.figure("paused_ms", paused_ms(s, at))


def version(s, host):
    """The versions as one host shows them."""
    return (s.cluster.status(host) or {}).get("version", {})


def mixed(s, left):
    """These hosts are left behind: every host says so, and the cluster stays where it is."""
    new, old = releases.understands(releases.later()), releases.understands(releases.earlier())
    for host in s.cluster.hosts:
        wanted = {"cluster": old, "here": old if host in left else new, "behind": sorted(left)}
        s.wait(lambda: version(s, host) == wanted, f"{host} shows {wanted}", 30)
        said = attention(s, host).get("version-behind", "")
        s.need(said == f"install the newer release on {sorted(left)[0]}", f"{host} says {said!r}: {attention(s, host)}")
    s.hold(lambda: all(version(s, h).get("cluster", old) == old for h in s.cluster.hosts), CALM_S, "raised too early")


def upgraded(s, host):
    """One host gets the later release, as operators are told: where a host is declared lost as soon as it is silent, it is
    in maintenance meanwhile."""
    s.cluster.cli(host, "maintenance", "host", host, "--for", "10m", "--reason", "upgrade", changes=True)
    releases.installed(s, host, releases.later())
    found = releases.doctor(s, host)
    s.need(any("installed no more" in text for _, text, _ in found), f"{host}: the doctor doesn't see the old keeper: {found}")
    s.need(any("restart antipode-agent" in next_ for _, _, next_ in found), f"{host}: nor the old agent: {found}")
    releases.keeper_reloaded(s, host)
    releases.agent_restarted(s, host)
    s.wait(lambda: admissions(s).get(host, ("",))[0] == "admitted", f"{host} is heard", 30)
    s.cluster.cli(host, "maintenance", "host", host, "--end", "--reason", "upgraded", changes=True)


@case("rolling-upgrade", hardware={"installed": "earlier"}, last=True)
def rolling_upgrade(s):
    """Host by host to another release: nobody notices, the version rises once all understand it, the new one fails over."""
    new, old = releases.understands(releases.later()), releases.understands(releases.earlier())
    s.need(new > old, f"both releases understand version {new}: this would prove nothing")
    before, hosts, at = s.boots(), admissions(s), s.now()
    order = s.cluster.at(AWAY, HOME, WITNESS)
    for number, host in enumerate(order, start=1):
        upgraded(s, host)
        left = order[number:]
        if left:
            mixed(s, left)
            # The new leads the old, and what it decides they apply; then the old leads the new again.
            handed_to(s, host)
            decided(s, host)
            s.healthy()
            decided(s, s.cluster.leader()[0])
        unnoticed(s, before, hosts)
    s.wait(lambda: all(version(s, h) == {"cluster": new, "here": new, "behind": []} for h in order), f"all at {new}", 30)
    s.healthy()
    unnoticed(s, before, hosts)
    by_consent(s, at, order, new)
    s.figure("paused_ms", paused_ms(s, at))
    s.need(not any("version-behind" in attention(s, h) for h in order), "somebody is still said to be behind")
    for host in order:
        states = [state for state, _, _ in releases.doctor(s, host)]
        s.need(states == ["good"], f"{host}: the doctor says {releases.doctor(s, host)}")
    fails_over(s)


def decided(s, host):
    """Something is decided by a leader, and every host shows it; then it is undone."""
    s.cluster.cli(host, "freeze", "group", "erp", "--for", "5m", "--reason", "live test", changes=True)
    frozen = lambda h: (s.cluster.status(h) or {}).get("freeze", [])  # noqa: E731
    s.wait(lambda: all(len(frozen(h)) == 1 for h in s.cluster.hosts), "every host shows the freeze", 30)
    index = frozen(host)[0]["index"]
    s.cluster.cli(host, "thaw", str(index), "--reason", "live test", changes=True)
    s.wait(lambda: not any(frozen(h) for h in s.cluster.hosts), "every host shows that it is over", 30)


def by_consent(s, since, order, new):
    """The version was raised once, after everybody had said in the log that they understand it."""
    raised = s.events("cluster-version-set", since)
    s.need(len(raised) == 1 and raised[0]["version"] == new, f"raised: {raised}")
    said = {e["host"]: e["index"] for e in s.events("supports", since) if e["version"] == new}
    s.need(sorted(said) == sorted(order), f"said by {said}")
    s.need(max(said.values()) < raised[0]["index"], f"raised at {raised[0]['index']}, said at {said}")


def fails_over(s):
    """The home site dies and is taken over, and comes back."""
    at = s.cluster.power_off(*s.cluster.at(HOME))
    s.served_at(AWAY, at)
    home = s.cluster.at(HOME)
    s.need(s.declared(at) == home and "self-fenced" in s.evidence(home[0], at), f"{s.declared(at)}: {s.evidence(home[0], at)}")
    s.figure("outage_ms", s.outage_ms(at))
    s.cluster.power_on(*home)
    s.healthy()


@case("left-behind", hardware={"installed": "later"}, last=True)
def left_behind(s):
    """After the raise a host gets the earlier release again: its agent ends and says why; the right release brings it back."""
    host, new = s.cluster.at(AWAY)[0], releases.understands(releases.later())
    s.wait(lambda: all(version(s, h).get("cluster") == new for h in s.cluster.hosts), f"all at {new}", 60)
    before, box = s.boots(), s.cluster.chassis[host]
    releases.installed(s, host, releases.earlier())
    found = releases.doctor(s, host)
    s.need(any(state == "bad" and "ends at once" in text for state, text, _ in found), f"the doctor doesn't warn: {found}")
    box.order("signal agent TERM")
    wanted = f"the cluster is at version {new} and this release understands {releases.understands(releases.earlier())} at most"
    s.wait(lambda: wanted in said_by_agent(s, host), f"the agent of {host} says why it ends", 60)
    untouched(s, before, CALM_S)
    s.need(s.cluster.status(host) is None, f"the agent of {host} goes on with a log that it doesn't understand")
    releases.installed(s, host, releases.later())
    s.healthy()
    s.need(s.boots() == before, "the guest was touched")


def said_by_agent(s, host):
    """The agent's own words."""
    with open(s.cluster.chassis[host].output()["agent"], encoding="utf-8", errors="replace") as f:
        return f.read()


def main():
    """Only the cases of upkeep are known here."""
    for name in [name for name, known in CASES.items() if known.story.__module__ not in MINE]:
        del CASES[name]
    return run.main()


if __name__ == "__main__":
    sys.exit(main())

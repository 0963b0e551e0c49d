"""What a case is, and the list of all of them.

A case is a name, the options of the cluster that it needs, and a story: a function that does to the stage what a
disaster and a person would do, and states what must come of it. Cases of equal options share one cluster, each beginning
healthy; a story leaves the cluster healthy unless it says `last=True`.
"""

from lab import spec

CASES = {}


class Case:
    """One case."""

    def __init__(self, name, story, options, flags):
        self.name, self.story, self.options = name, story, options
        #: What the cluster needs beside its spec: watchdog_ms, environment of the agents, mutants,
        #: installed (`earlier` or `later`: each host has a release of its own, see `releases`).
        self.hardware = flags.pop("hardware", {})
        #: Part of `check-D2-quick`.
        self.quick = flags.pop("quick", False)
        #: The cluster isn't healthy afterwards.
        self.last = flags.pop("last", False)
        #: A negative control: the planted fault must show.
        self.overlap_wanted = flags.pop("overlap_wanted", False)
        #: Only in `test-long`.
        self.long = flags.pop("long", False)
        assert not flags, f"{name}: no such flag {sorted(flags)}"
        self.claim = " ".join((story.__doc__ or "").split())

    def stage_key(self):
        """Cases of one key share a cluster."""
        return repr((sorted(self.options.items()), sorted(self.hardware.items())))

    def spec_options(self):
        """The cluster's options."""
        return spec.Options(**self.options)


def case(name, options=None, **flags):
    """Registers a story under a name."""

    def register(story):
        assert name not in CASES, name
        CASES[name] = Case(name, story, options or {}, dict(flags))
        return story

    return register

"""What a lab cluster is configured with: the one place that knows the grammar of the product's two files.

`agent_toml` is a host's own file, `cluster_toml` the cluster spec in which one QEMU guest, mirrored synchronously, is at
home at tokyo and has osaka to go to. Not here: certificates, processes, networks (`cluster`, `net`).
"""

from lab import net
from lab.guest import boot

CLUSTER = "demo"
GROUP = "erp"
ADDRESS = "10.78.0.10"
AGENT_PORT, NBD_PORT = 7600, 10809
MACS = {"tokyo": "52:54:00:00:77:01", "osaka": "52:54:00:00:77:02"}
#: host name: site. The order is the order of their votes.
HOSTS = {"tk-1": "tokyo", "os-1": "osaka", "ng-1": "nagoya"}
WITNESS = "nagoya"


class Options:
    """What tests vary; the defaults are the demonstration's."""

    def __init__(self, **changed):
        self.hosts = dict(HOSTS)
        #: Who founds the cluster; all hosts, unless it is said.
        self.voters = None
        self.declare = "eager"
        self.tier = "auto"
        self.mode = "sync"
        self.target_rpo = "0s"
        self.failback = "auto"
        self.stable_for = "5s"
        self.hold_off = "0s"
        self.round_trip_max = "40ms"
        self.append = ""
        self.accept = ["self-fenced"]
        #: W as the cluster is told; None leaves the product's default, which fits the chassis' own.
        self.watchdog_worst = None
        self.announce = True
        #: A site's second host and those after it have a network namespace of their own, as machines have.
        self.own_machines = False
        #: How often the wire looks for frames by itself (`lab.wan`); 0: each one wakes it.
        self.gather_ms = 0.0
        #: Without it the cluster has hosts and nothing to run.
        self.with_group = True
        self.group_lines = []
        for key, value in changed.items():
            if not hasattr(self, key):
                raise AttributeError(f"no option {key}")
            setattr(self, key, value)


def _text(value):
    """A TOML basic string."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(values):
    return "[" + ", ".join(_text(v) for v in values) + "]"


def _reached(addresses, host):
    return _list([f"{addresses[host]}:{AGENT_PORT}"])


def agent_toml(host, hosts, folders, voters=None):
    """One host's file; `folders` has data, run, tls, keeper and slice. `voters`: those that found, if not all do."""
    lines = [f"cluster = {_text(CLUSTER)}", f"host = {_text(host)}", f"site = {_text(hosts[host])}"]
    lines += [f"data_dir = {_text(folders['data'])}", f"run_dir = {_text(folders['run'])}"]
    addresses = folders["address"]
    lines += ["[network]", f"listen = {_reached(addresses, host)}"]
    tls = folders["tls"]
    lines += ["[tls]", f"ca = {_text(tls + '/ca.pem')}", f"cert = {_text(tls + '/identity.pem')}"]
    lines += [f"key = {_text(tls + '/identity.pem')}"]
    lines += ["[keeper]", f"dir = {_text(folders['keeper'])}", f"slice = {_text(folders['slice'])}"]
    # The chassis' dog is seen to bite, again and again, by the keeper's own tests.
    lines += ["fire_tests = 3"]
    numbers = {name: n for n, name in enumerate(voters or hosts, start=1)}
    if host in numbers:
        lines += ["[voter]", f"id = {numbers[host]}", f"prefer_leader = {str(hosts[host] == WITNESS).lower()}"]
    for peer, site in hosts.items():
        if peer != host:
            lines += ["[[peer]]", f"host = {_text(peer)}", f"site = {_text(site)}"]
            lines += [f"addresses = {_reached(addresses, peer)}"]
            lines += [f"voter = {numbers[peer]}"] if peer in numbers else []
    return "\n".join(lines) + "\n"


def cluster_toml(options, guest):
    """The cluster spec; `guest` has kernel, image, observer (socket) and disk (a path with `{host}` in it)."""
    lines = ["[cluster]", f"name = {_text(CLUSTER)}", "lab = true", f"declare = {_text(options.declare)}"]
    lines += [f"round_trip_max = {_text(options.round_trip_max)}"]
    lines += [f"watchdog_worst = {_text(options.watchdog_worst)}"] if options.watchdog_worst else []
    for site in net.SITES:
        lines += ["[[site]]", f"name = {_text(site)}", *(["witness = true"] if site == WITNESS else [])]
    for host, site in options.hosts.items():
        lines += ["[[host]]", f"name = {_text(host)}", f"site = {_text(site)}"]
        lines += [f"addresses = {_reached(guest['address'], host)}", 'fencing = [["self"]]']
    return "\n".join(lines + (_group(options, guest) if options.with_group else [])) + "\n"


def _group(options, guest):
    lines = ["[[group]]", f"name = {_text(GROUP)}", f"tier = {_text(options.tier)}", 'home = "tokyo"']
    lines += [f"accept = {_list(options.accept)}", f"target_rpo = {_text(options.target_rpo)}"]
    lines += [f"hold_off = {_text(options.hold_off)}", *options.group_lines]
    lines += [f"failback = {{ policy = {_text(options.failback)}, stable_for = {_text(options.stable_for)} }}"]
    lines += ["[[group.volume]]", 'name = "root"']
    nbd = f"mode = {_text(options.mode)}, port = {NBD_PORT}, path = {_text(guest['disk'])}"
    lines += [f"replication = {{ kind = \"nbd\", {nbd} }}"]
    for site in ("tokyo", "osaka"):
        lines += _place(site, options, guest)
    return lines


def _place(site, options, guest):
    hosts = [h for h, s in options.hosts.items() if s == site]
    append = f"{boot.APPEND} antipode.ip={ADDRESS}/24 {options.append}".strip()
    announced = [f"{{ ip = {_text(ADDRESS)}, interface = \"br-seg\", mac = {_text(MACS[site])} }}"]
    channel = f"{{ name = \"org.antipode.observer\", path = {_text(guest['observer'])} }}"
    return [
        f"[group.at.{site}]",
        'kind = "qemu"',
        f"hosts = {_list(hosts)}",
        'memory = "96MiB"',
        'accelerator = "tcg"',
        f"kernel = {_text(guest['kernel'])}",
        f"initrd = {_text(guest['image'])}",
        f"append = {_text(append)}",
        f"nics = [{{ bridge = \"br-seg\", mac = {_text(MACS[site])} }}]",
        f"channels = [{channel}]",
        f"addresses = [{', '.join(announced if options.announce else [])}]",
        f"probe = {{ tcp = {_text(ADDRESS + ':80')}, within = \"60s\" }}",
    ]

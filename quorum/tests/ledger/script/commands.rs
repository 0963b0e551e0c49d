//! From a line to a command, and the defaults that the ledger's state gives.

use super::args::{Args, host, host_epoch};
use super::world::World;
use quorum::id::{Epoch, GroupName, HostEpoch};
use quorum::ledger::{Command, Incarnation};

impl World {
    /// The command that a line asks for.
    pub fn command(&mut self, args: &Args<'_>) -> Command {
        if args.verb() == "spec" {
            let next = self.ledger.spec_revision().revision + 1;
            return super::spec::set_spec(&mut self.spec, next, args);
        }
        let command = self.host_command(args).or_else(|| self.group_command(args));
        let command = command.or_else(|| self.plan_command(args)).or_else(|| self.people_command(args));
        command.unwrap_or_else(|| panic!("no such verb: {:?}", args.line))
    }

    /// `tk1` in its current admission, or `tk1@2`.
    pub fn incarnation(&self, text: &str) -> Incarnation {
        match text.split_once('@') {
            Some((name, he)) => Incarnation { host: host(name), he: host_epoch(he) },
            None => {
                let he = self.ledger.host(&host(text)).map_or(HostEpoch::default(), |state| state.he);
                Incarnation { host: host(text), he }
            }
        }
    }

    /// Who holds a group's ticket; whoever was named, if nobody does.
    pub fn holder(&self, group: &GroupName, args: &Args<'_>) -> Incarnation {
        if let Some(named) = args.get("of") {
            return self.incarnation(named);
        }
        let ticket = self.ledger.group(group).and_then(|state| state.ticket.as_ref());
        ticket.map_or_else(|| self.incarnation("tk1"), |ticket| ticket.of.clone())
    }

    /// A group's epoch, or the one that the line says.
    pub fn epoch(&self, group: &GroupName, args: &Args<'_>) -> Epoch {
        let current = self.ledger.group(group).map(|state| state.epoch).unwrap_or_default();
        args.get("epoch").map_or(current, super::args::epoch)
    }
}

//! The voters: who they are, who leads, who comes and who goes.

use super::look::{LookArgs, quorum_status};
use super::options::{Format, Reach, Shown, Why};
use super::{Failure, Outcome, apply, client};
use crate::admin::{BackupDocument, ErrorDocument, Exit, MembersAsked, local_person};
use crate::config::AgentConfig;
use crate::driver::runtime::recovery::{self, Asked, NotRecovered, Recovered};
use crate::engine::{API_VERSION, MemberOrder};
use quorum::id::{GroupName, HostName};
use quorum::ledger::Decision;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Verbs of the quorum.
#[derive(Debug, clap::Subcommand)]
pub(super) enum QuorumVerb {
    /// Show the voters
    Status(LookArgs),
    /// Hand the leadership to a host; the leader's agent must be asked
    Transfer {
        /// The host
        host: HostName,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Make a host of the spec a voter: it first receives the log, then votes
    Add(AddArgs),
    /// Take a host's vote away
    Remove(RemoveArgs),
    /// Write what the cluster has decided into a file, for `quorum restore`
    Backup {
        /// The file; it must not be there
        file: PathBuf,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Break glass: begin a new era with this host as the only voter, from its own store; the agent must be stopped
    #[command(after_help = WHAT_IT_DOES)]
    Recover(RecoverArgs),
    /// Break glass: begin a new era with this host as the only voter, from a backup; the agent must be stopped
    #[command(after_help = WHAT_IT_DOES)]
    Restore {
        /// What `quorum backup` wrote
        file: PathBuf,
        #[command(flatten)]
        args: RecoverArgs,
    },
}

/// Read by whoever is asked to confirm, and shown by the help.
const WHAT_IT_DOES: &str = "\
Begins a new era with this host as the only voter. What follows from it:
 - Every other voter is given up for ever. One that comes back votes no more; it is added again with quorum add.
 - What a lost majority decided last may be missing here. So no group starts until each host that may have run it
   has answered or been vouched for, and a person has accepted the loss for the copy that is to run.
 - A lease that ended proves nothing about the older era: burned hosts are vouched for with fence override.
 - The cluster begins frozen: nothing moves by itself until antipode thaw INDEX, which is printed at the end.
 - Nothing is declared lost automatically until voters stand at two sites again.
";

/// Arguments of `quorum recover` and `quorum restore`.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    /// This host's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/antipode/agent.toml")]
    config: PathBuf,
    /// A machine that may run a group although no spec that is known here names it; may be given again
    #[arg(long = "place", value_name = "GROUP=HOST", value_parser = place)]
    places: Vec<(GroupName, HostName)>,
    /// How long the other voters are looked for
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=600))]
    look_for: u64,
    /// The cluster's name once more
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
    /// Look for the other voters and say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    shown: Shown,
}

fn place(text: &str) -> Result<(GroupName, HostName), String> {
    let wrong = || format!("{text:?} is no GROUP=HOST");
    let (group, host) = text.split_once('=').ok_or_else(wrong)?;
    Ok((GroupName::new(group).map_err(|_| wrong())?, HostName::new(host).map_err(|_| wrong())?))
}

/// Arguments of `quorum add`.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The host
    host: HostName,
    /// The host whose vote goes for it, in the same step
    #[arg(long, value_name = "HOST")]
    replace: Option<HostName>,
    #[command(flatten)]
    given: Given,
}

/// Arguments of `quorum remove`.
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// The host
    host: HostName,
    /// Also if so few voters are left that none of them may be lost
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, clap::Args)]
struct Given {
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

impl Given {
    fn order(&self, order: MemberOrder) -> Result<Outcome, Failure> {
        if self.why.reason.is_empty() {
            let text = "a change of the voters needs a reason for the audit log";
            return Err(Failure::new(Exit::Usage, "reason-missing", text, "add --reason \"...\""));
        }
        let asked = MembersAsked { order, reason: self.why.reason.clone() };
        apply::done(&client::post(&self.reach, "/v1/members", &asked)?, self.shown.format)
    }
}

impl QuorumVerb {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        match self {
            Self::Status(look) => quorum_status(&look),
            Self::Transfer { host, look } => {
                let answer = client::post(&look.reach, &format!("/v1/transfer/{host}"), &())?;
                apply::done(&answer, look.shown.format)
            }
            Self::Add(AddArgs { host, replace, given }) => given.order(MemberOrder::Add { host, replaces: replace }),
            Self::Remove(RemoveArgs { host, anyway, given }) => given.order(MemberOrder::Remove { host, anyway }),
            Self::Backup { file, look } => backup(&file, &look),
            Self::Recover(args) => args.run(None),
            Self::Restore { file, args } => args.run(Some(file)),
        }
    }
}

/// Takes the agent's ledger into a file that only its owner can read.
fn backup(file: &Path, look: &LookArgs) -> Result<Outcome, Failure> {
    let answer = client::get(&look.reach, "/v1/backup")?;
    let strange = |text: String| Failure::new(Exit::Error, "strange-answer", text, "antipode version");
    let document: BackupDocument = serde_json::from_value(answer).map_err(|error| strange(error.to_string()))?;
    let bytes = document.bytes().ok_or_else(|| strange("the backup is no hexadecimal text".to_owned()))?;
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    written.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all())).map_err(|error| {
        let text = format!("write {}: {error}", file.display());
        Failure::new(Exit::Error, "file-unwritable", text, "name a new file")
    })?;
    let (index, era) = (document.index, document.era);
    Ok(Outcome::done(match look.shown.format {
        Format::Text => format!("wrote the state at log index {index} of era {era} to {}\n", file.display()),
        Format::Json => {
            let done = serde_json::json!({
                "api_version": API_VERSION, "index": index, "era": era, "file": file, "bytes": bytes.len(),
            });
            format!("{done}\n")
        }
    }))
}

impl RecoverArgs {
    fn run(self, backup: Option<PathBuf>) -> Result<Outcome, Failure> {
        let name = self.config.display().to_string();
        let config = AgentConfig::parse(&name, &apply::read(&self.config)?).map_err(|problems| {
            Failure::new(Exit::Error, "config-invalid", problems.to_string(), "correct the file")
        })?;
        if self.why.reason.is_empty() {
            let text = "a new era needs a reason for the audit log";
            return Err(Failure::new(Exit::Usage, "reason-missing", text, "add --reason \"...\""));
        }
        if !self.dry_run {
            self.confirmed(&config.cluster)?;
        }
        let mut places: BTreeMap<GroupName, Vec<HostName>> = BTreeMap::new();
        for (group, host) in self.places {
            places.entry(group).or_default().push(host);
        }
        let shown =
            "a majority of the voters is lost for ever: the others were looked for and did not answer".to_owned();
        let by = Decision { by: local_person(rustix::process::getuid().as_raw()), reason: self.why.reason, shown };
        let look_for = Duration::from_secs(self.look_for);
        let asked = Asked { backup, places, look_for, dry_run: self.dry_run, by };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Error, "no-runtime", error.to_string(), ""))?;
        let recovered = runtime.block_on(recovery::recover(&config, &asked)).map_err(|error| told(&error))?;
        Ok(Outcome::done(shown_as(&recovered, self.dry_run, self.shown.format)))
    }

    fn confirmed(&self, cluster: &str) -> Result<(), Failure> {
        let wrong =
            |text: String| Failure::new(Exit::Usage, "not-confirmed", text, "add --confirm and the cluster's name");
        let said = match &self.confirm {
            Some(said) => said.clone(),
            None if !std::io::stdin().is_terminal() => {
                return Err(wrong("nobody is there to type the cluster's name".to_owned()));
            }
            None => {
                eprint!("{WHAT_IT_DOES}");
                eprint!("type {cluster} to begin a new era: ");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map_err(|error| wrong(error.to_string()))?;
                line.trim().to_owned()
            }
        };
        if said == cluster { Ok(()) } else { Err(wrong(format!("{said:?} is not {cluster}"))) }
    }
}

fn told(error: &NotRecovered) -> Failure {
    let text = Failure::ended("not-recovered", error, "").0.error.text;
    let (exit, code, next) = match error {
        NotRecovered::Reachable { .. } => {
            (Exit::Refused, "voter-reachable", "start this agent: antipode quorum status; or stop that voter for good")
        }
        NotRecovered::Store(quorum::storage::StorageError::InUse(_)) => {
            (Exit::Refused, "agent-running", "systemctl stop antipode-agent; its groups must be down first")
        }
        NotRecovered::Recover(_) => (Exit::Refused, "era-refused", "the text says why"),
        NotRecovered::NoVote => (Exit::Refused, "no-vote", "antipode quorum restore FILE"),
        NotRecovered::Store(_) => (Exit::Error, "store-unusable", "antipode quorum restore FILE, with a backup"),
        NotRecovered::Run(_) => (Exit::Error, "not-recovered", "the text says what failed"),
    };
    Failure(ErrorDocument::new(exit, code, text, next))
}

fn shown_as(recovered: &Recovered, dry_run: bool, format: Format) -> String {
    let Recovered { era, voter, index, groups, others, freeze } = recovered;
    if format == Format::Json {
        let document = serde_json::json!({
            "api_version": API_VERSION, "dry_run": dry_run, "era": era.0, "voter": voter.0, "index": index,
            "groups": groups, "others": others, "freeze": freeze,
        });
        return format!("{document}\n");
    }
    let names = |list: Vec<String>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let did = if dry_run { "would begin" } else { "began" };
    format!(
        "{did} era {era} with this host as the only voter ({voter}), from what is known up to log index {index}\n\
         groups that need evidence for every place and a recorded acceptance of loss: {}\n\
         older voters, to be added again once this agent runs (antipode quorum add HOST): {}\n\
         automation is frozen until you have looked: antipode thaw {freeze} --reason \"...\"\n\
         next: start this agent, then antipode status\n",
        names(groups.iter().map(ToString::to_string).collect()),
        names(others.iter().map(ToString::to_string).collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_group_and_a_host() {
        assert!(place("erp=tk-1").is_ok());
        for bad in ["erp", "=tk-1", "erp=", "erp=TK 1", ""] {
            assert!(place(bad).is_err(), "{bad:?}");
        }
    }
}

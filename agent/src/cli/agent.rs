//! `agent`: the daemon's start: its file, its log, its runtime. What it then does is the caller's (`driver::runtime`).

use super::{Failure, apply};
use crate::admin::Exit;
use crate::config::AgentConfig;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// After so many turns of the transport's tasks the loop has its own, and the kernel is asked what came.
const TURNS: u32 = 16;

/// Arguments of `agent`.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// This host's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/antipode/agent.toml")]
    config: PathBuf,
    /// What is logged, as `info` or `warn,antipode::driver=debug`
    #[arg(long, value_name = "FILTER", env = "ANTIPODE_LOG", default_value = "info")]
    log: String,
}

/// Reads the configuration, starts the log on standard error, and runs `daemon` until it ends.
///
/// # Errors
/// [`Failure`], with what the daemon ended with.
pub fn run<D, F, E>(args: &AgentArgs, daemon: D) -> Result<(), Failure>
where
    D: FnOnce(AgentConfig) -> F,
    F: Future<Output = Result<(), E>>,
    E: std::error::Error,
{
    let text = apply::read(&args.config)?;
    let config = AgentConfig::parse(&args.config.display().to_string(), &text)
        .map_err(|problems| Failure::new(Exit::Error, "config-invalid", problems.to_string(), "correct the file"))?;
    let filter: EnvFilter = args
        .log
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, "log-filter", format!("--log: {error}"), "--log info"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // One thread for the loop and the transport; what may keep a thread has others (`driver::runtime`). A flood of
    // handshakes must not keep the loop from its turn either.
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(TURNS).enable_all().build();
    let runtime = runtime.map_err(|error| ended(&error))?;
    runtime.block_on(daemon(config)).map_err(|error| ended(&error))
}

fn ended(error: &dyn std::error::Error) -> Failure {
    Failure::ended("agent-ended", error, "the agent's log says more; groups go on while this host's lease lasts")
}

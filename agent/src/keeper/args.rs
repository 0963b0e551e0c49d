//! What a keeper is told on its command line, and the checked form of it.
//!
//! Contract: every span is checked against the others before anything is opened; all problems are told at once.
//! Not here: where the figures come from (the agent's configuration; `quorum::timing` relates them to the lease).

use super::device::WatchdogSpec;
use std::path::PathBuf;
use std::time::Duration;

/// Where keeper, holder and agent meet, unless told otherwise. It must be on a tmpfs: nothing of a keeper may wait
/// for a disk.
pub const DIRECTORY: &str = "/run/antipode/keeper";

/// Arguments of `antipode keeper`.
#[derive(Clone, Debug, clap::Args)]
pub struct KeeperArgs {
    /// Directory that keeper, holder and agent share, on a tmpfs
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    pub dir: PathBuf,
    /// The watchdog: a device file, `lab:` and a chassis' socket, or `none`
    #[arg(long, value_name = "WATCHDOG", default_value = "/dev/watchdog")]
    pub watchdog: WatchdogSpec,
    /// What the watchdog is set to
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub timeout: Duration,
    /// W: the commissioned worst time from the last pet to the reset, times 1.1 [default: 1.1 × timeout]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub worst: Option<Duration>,
    /// δ_hw: from the watchdog's firing until the host executes nothing any more
    #[arg(long, value_name = "SPAN", default_value = "50ms", value_parser = span)]
    pub delta_hw: Duration,
    /// δ_io: from the end of the last process until none of its I/O can take effect any more
    #[arg(long, value_name = "SPAN", default_value = "50ms", value_parser = span)]
    pub delta_io: Duration,
    /// P: how often the watchdog is petted
    #[arg(long, value_name = "SPAN", default_value = "100ms", value_parser = span)]
    pub period: Duration,
    /// How often the record is looked at; at most the period
    #[arg(long, value_name = "SPAN", default_value = "25ms", value_parser = span)]
    pub look: Duration,
    /// No lease ends further ahead than this
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub lease_max: Duration,
    /// The slice's name below the cgroup2 mount
    #[arg(long, value_name = "NAME", default_value = "antipode")]
    pub slice: String,
    /// The holder's socket, or `none` for a keeper that works without one [default: in DIR]
    #[arg(long, value_name = "SOCKET")]
    pub holder: Option<PathBuf>,
    /// A helper program, started now and triggered at the end of a lease; may be given several times
    #[arg(long = "helper", value_name = "PROGRAM")]
    pub helpers: Vec<PathBuf>,
    /// How long the helpers may take to get ready
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub helpers_ready_within: Duration,
    /// An orderly stop may disarm the watchdog (never possible with nowayout)
    #[arg(long)]
    pub allow_disarm: bool,
    /// Print what the running keeper says, as JSON, and end
    #[arg(long)]
    pub show: bool,
    /// Commission the watchdog: arm it, stop petting in this way, and record until it fires
    #[arg(long, value_name = "HOW", requires = "fire_file")]
    pub fire_test: Option<super::fire::How>,
    /// Print what the last fire test recorded, as JSON, and end
    #[arg(long, requires = "fire_file", conflicts_with = "fire_test")]
    pub fire_report: bool,
    /// Where the fire test records, on a disk that survives the reset
    #[arg(long, value_name = "FILE")]
    pub fire_file: Option<PathBuf>,
    /// The descriptor that an earlier program left (exec upgrade only)
    #[arg(long, value_name = "FD", hide = true)]
    pub resume: Option<i32>,
}

/// Why the arguments can't be followed. Nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// W is less than what the watchdog is set to.
    #[error(
        "start the keeper: --worst {worst:?} is less than --timeout {timeout:?}; W is the measured worst, times 1.1"
    )]
    WorstBelowTimeout {
        /// W.
        worst: Duration,
        /// The watchdog's setting.
        timeout: Duration,
    },
    /// The watchdog would be petted too rarely to live.
    #[error("start the keeper: --period {period:?} must be at most a quarter of --timeout {timeout:?}")]
    PeriodTooLong {
        /// P.
        period: Duration,
        /// The watchdog's setting.
        timeout: Duration,
    },
    /// The record is looked at more rarely than the watchdog is petted, or all the time.
    #[error("start the keeper: --look {look:?} must be more than nothing and at most --period {period:?}")]
    Look {
        /// How often the record is looked at.
        look: Duration,
        /// P.
        period: Duration,
    },
}

impl KeeperArgs {
    /// W in force.
    pub fn worst(&self) -> Duration {
        self.worst.unwrap_or_else(|| self.timeout.mul_f64(1.1))
    }

    /// The holder's socket; `None` if the keeper is to work without one.
    pub fn holder(&self) -> Option<PathBuf> {
        match &self.holder {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(path.clone()),
            None => Some(self.dir.join(super::holder::HOLDER_SOCKET)),
        }
    }

    /// All that is wrong with them.
    pub fn problems(&self) -> Vec<ArgsError> {
        let mut problems = Vec::new();
        let (worst, timeout) = (self.worst(), self.timeout);
        if worst < timeout {
            problems.push(ArgsError::WorstBelowTimeout { worst, timeout });
        }
        if self.period * 4 > timeout {
            problems.push(ArgsError::PeriodTooLong { period: self.period, timeout });
        }
        if self.look.is_zero() || self.look > self.period {
            problems.push(ArgsError::Look { look: self.look, period: self.period });
        }
        problems
    }
}

/// Reads a span: a number with `ms` or `s`.
///
/// # Errors
/// A text that names both units.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a span is a number with `ms` or `s`, as in 1100ms or 1.1s; not {text:?}");
    let (number, nanos) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e6),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1e9),
    };
    let value: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !(0.0..=1e6).contains(&value) {
        return Err(wrong());
    }
    Ok(Duration::from_nanos((value * nanos).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn parsed(arguments: &[&str]) -> KeeperArgs {
        let command = KeeperArgs::augment_args(Command::new("keeper").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("well formed");
        KeeperArgs::from_arg_matches(&matches).expect("complete")
    }

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(span("1100ms"), Ok(Duration::from_millis(1100)));
        assert_eq!(span("1.1s"), Ok(Duration::from_millis(1100)));
        for bad in ["", "1", "s", "-1s", "1m", "NaNs", "1e99s"] {
            assert!(span(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_defaults_are_sound_and_w_is_more_than_the_setting() {
        let args = parsed(&[]);
        assert_eq!(args.problems(), []);
        assert_eq!(args.worst(), Duration::from_millis(1100));
        assert_eq!(args.holder(), Some("/run/antipode/keeper/holder.sock".into()));
        assert_eq!(parsed(&["--holder", "none"]).holder(), None);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let args = parsed(&["--worst", "900ms", "--period", "400ms", "--look", "500ms"]);
        assert_eq!(args.problems().len(), 3, "{:?}", args.problems());
    }
}

//! A scenario on disk: a folder with `cluster.toml`, `script`, `expect` and `README.md`, or one file with the first
//! two in this order, a line `----` between them. A folder without a cluster takes that of the folder above it.

use super::cluster::Cluster;
use super::run::{Report, run};
use super::script;
use crate::config::{Problem, Problems};
use std::path::Path;

/// A scenario as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name: of the folder, or of the file.
    pub name: String,
    /// `cluster.toml` and what it is called in complaints.
    cluster: (String, String),
    script: (String, String),
    /// Lines of the file before the script.
    offset: usize,
}

/// Between cluster and script in a single file.
const DIVIDER: &str = "----";

impl Scenario {
    /// Reads a scenario from `path`.
    ///
    /// # Errors
    /// What can't be read, with a remedy.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                problem(
                    &path.display().to_string(),
                    format!("can't be read: {error}"),
                    "name a scenario's folder or file",
                )
            })
        };
        if path.is_dir() {
            let part = |file: &Path| Ok((file.display().to_string(), read(file)?));
            let own = path.join("cluster.toml");
            let common = path.parent().map(|above| above.join("cluster.toml")).filter(|file| file.is_file());
            let cluster = if own.is_file() { own } else { common.unwrap_or(own) };
            return Ok(Self { name, cluster: part(&cluster)?, script: part(&path.join("script"))?, offset: 0 });
        }
        let (file, text) = (path.display().to_string(), read(path)?);
        Self::from_text(&name, &file, &text)
    }

    /// A scenario that is in one text.
    ///
    /// # Errors
    /// If there is no divider.
    pub fn from_text(name: &str, file: &str, text: &str) -> Result<Self, Problems> {
        let Some(at) = text.lines().position(|line| line.trim_end() == DIVIDER) else {
            let what = format!("has no line {DIVIDER:?} between cluster and script");
            return Err(problem(file, what, "write the cluster spec, that line, then the script"));
        };
        let part = |lines: Vec<&str>| lines.join("\n") + "\n";
        let cluster = part(text.lines().take(at).collect());
        let script = part(text.lines().skip(at + 1).collect());
        Ok(Self {
            name: name.to_owned(),
            cluster: (file.into(), cluster),
            script: (file.into(), script),
            offset: at + 1,
        })
    }

    /// Plays it.
    ///
    /// # Errors
    /// Everything wrong with the cluster, or with the script.
    pub fn play(&self) -> Result<Report, Problems> {
        let cluster = Cluster::parse(&self.cluster.0, &self.cluster.1)?;
        let lines =
            script::parse(&self.script.0, &self.script.1, &cluster.cast()).map_err(|Problems(mut problems)| {
                problems.iter_mut().filter(|problem| problem.line > 0).for_each(|problem| problem.line += self.offset);
                Problems(problems)
            })?;
        let mut report = run(cluster, &lines);
        if let Some(fault) = &mut report.fault {
            fault.line += self.offset;
        }
        Ok(report)
    }
}

fn problem(file: &str, what: String, remedy: &str) -> Problems {
    Problems(vec![Problem { file: file.into(), line: 0, key: "scenario".into(), what, remedy: remedy.into() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_single_file_are_counted_from_its_beginning() {
        let text = "[cluster]\nname = \"demo\"\n[[site]]\nname = \"a\"\n[[host]]\nname = \"a-1\"\nsite = \"a\"\n----\nboot\nfly\n";
        let scenario = Scenario::from_text("demo", "demo.scenario", text).expect("it has a divider");
        let problems = scenario.play().expect_err("`fly` is no verb").to_string();
        assert!(problems.starts_with("demo.scenario:10: fly: is no verb"), "{problems}");
        assert!(Scenario::from_text("demo", "demo.scenario", "boot\n").is_err());
    }
}

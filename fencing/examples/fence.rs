//! Tries fencing devices out without a cluster: what the agent does with them, from one file.
//!
//! ```text
//! cargo run -p fencing --example fence -- check FILE              is the configuration good?
//! cargo run -p fencing --example fence -- test FILE               read every device; switches nothing
//! cargo run -p fencing --example fence -- dry FILE HOST           what would be done to HOST
//! cargo run -p fencing --example fence -- run FILE HOST [ORDER]   do it; ORDER is a FenceOrder as JSON (claims, epoch)
//! cargo run -p fencing --example fence -- serve FILE              read every device, then do each ORDER on standard input
//! cargo run -p fencing --example fence -- metadata AGENT          what a ClusterLabs agent says of itself
//! ```
//! FILE holds `[[host]]` and `[[device]]` tables (see fencing/docs/). Exit code 0: good, or proven; 1: not; 2: usage.

use fencing::device::metadata::Metadata;
use fencing::executor::{Executor, Handle, Report};
use fencing::name::HostName;
use fencing::process::Leash;
use fencing::request::Stamp;
use fencing::topology::Problem;
use fencing::{FenceOrder, FencingConfig, Verdict};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["check", file] => check(file),
        ["test", file] => test(file).await,
        ["dry", file, host] => dry(file, host).await,
        ["run", file, host] => run(file, host, None).await,
        ["run", file, host, order] => run(file, host, Some(order)).await,
        ["serve", file] => serve(file).await,
        ["metadata", agent] => metadata(agent).await,
        _ => {
            eprintln!("usage: fence check|test|serve FILE | dry FILE HOST | run FILE HOST [ORDER] | metadata AGENT");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn load(file: &str) -> Result<FencingConfig, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    Ok(FencingConfig::parse(&text).map_err(told)?)
}

fn told(problems: Vec<Problem>) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn check(file: &str) -> Result<bool, Failure> {
    let built = load(file)?.build().map_err(told)?;
    for facts in built.topology.devices().values() {
        println!("{}: kind {}, proves {:?}", facts.name, facts.kind, facts.proves);
    }
    println!("good");
    Ok(true)
}

/// An executor whose journal goes away with the process.
fn start(file: &str) -> Result<(tempfile::TempDir, Handle), Failure> {
    let home = tempfile::tempdir()?;
    let config = load(file)?;
    config.build().map_err(told)?;
    let handle = Executor::start(&config, home.path())?;
    Ok((home, handle))
}

async fn test(file: &str) -> Result<bool, Failure> {
    let (_home, handle) = start(file)?;
    let mut good = true;
    for tested in handle.probe_all().await {
        let took = tested.latency.as_millis();
        match (&tested.trouble, &tested.observed) {
            _ if tested.waits => println!("{}: waits for evidence from elsewhere", tested.device),
            (Some(trouble), _) => {
                good = false;
                println!("{}: {trouble}\n  {}", tested.device, trouble.remedy());
            }
            (None, observed) => {
                let identity = tested.identity.unwrap_or_default();
                println!(
                    "{}: reads {} ({identity}) in {took} ms",
                    tested.device,
                    observed.as_deref().unwrap_or("nothing")
                );
            }
        }
    }
    for item in handle.status().attention {
        println!("{:?}: {}: {}\n  {}", item.weight, item.subject, item.text, item.remedy);
    }
    Ok(good)
}

fn order_for(host: &str, order: Option<&str>) -> Result<FenceOrder, Failure> {
    if let Some(order) = order {
        return Ok(serde_json::from_str(order)?);
    }
    let stamp = Stamp { era: 1, term: 1, index: 1 };
    Ok(FenceOrder::new(HostName::new(host)?, 1, stamp, Duration::from_secs(120)))
}

async fn dry(file: &str, host: &str) -> Result<bool, Failure> {
    let (_home, handle) = start(file)?;
    let dry = handle.dry_run(&order_for(host, None)?)?;
    println!("{}", serde_json::to_string_pretty(&dry)?);
    Ok(true)
}

async fn run(file: &str, host: &str, order: Option<&str>) -> Result<bool, Failure> {
    let (_home, handle) = start(file)?;
    carry_out(&handle, order_for(host, order)?).await
}

/// Like an agent: the executor stays, and its devices have been read before the first order comes.
async fn serve(file: &str) -> Result<bool, Failure> {
    let (_home, handle) = start(file)?;
    handle.probe_all().await;
    println!("ready");
    let mut proven = true;
    for line in std::io::stdin().lines() {
        proven &= carry_out(&handle, serde_json::from_str(&line?)?).await?;
    }
    Ok(proven)
}

async fn carry_out(handle: &Handle, order: FenceOrder) -> Result<bool, Failure> {
    let mut reports = handle.run(order, Arc::new(|_| Ok(()))).await?;
    let mut proven = false;
    while let Some(report) = reports.recv().await {
        println!("{}", serde_json::to_string(&report)?);
        if let Report::Concluded { verdict, silences, .. } = &report {
            proven = matches!(verdict, Verdict::Proven { .. });
            println!("{verdict}");
            silences.iter().for_each(|silence| println!("{silence}"));
        }
    }
    Ok(proven)
}

async fn metadata(agent: &str) -> Result<bool, Failure> {
    let leash = Leash::until(Instant::now() + Duration::from_secs(30));
    let metadata = Metadata::of(agent.as_ref(), &leash).await?;
    println!("{}", serde_json::to_string_pretty(&metadata)?);
    Ok(true)
}

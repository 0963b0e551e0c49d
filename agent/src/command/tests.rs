//! The runner against real programs of the base system.

use super::*;

fn shell(script: &str, deadline: Duration) -> Invocation {
    Invocation::new(&Program::find("sh").unwrap(), deadline).args(["-c", script])
}

const LONG: Duration = Duration::from_secs(30);

fn is_alive(pid: i32) -> bool {
    // A zombie is dead; whoever adopted it has merely not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

async fn until_dead(pid: i32) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..2000 {
        look.tick().await;
        if !is_alive(pid) {
            return;
        }
    }
    panic!("process {pid} is still alive");
}

#[tokio::test]
async fn a_child_sees_its_input_its_arguments_and_nothing_of_our_environment() {
    let outcome = shell("cat; echo \"$1|$GIVEN|$HOME|$CARGO\"; exit 3", LONG)
        .args(["arg0", "a b;c"])
        .env("GIVEN", "yes")
        .stdin("in\n")
        .run()
        .await
        .unwrap();
    assert_eq!(outcome.ending, Ending::Code(3));
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), "in\na b;c|yes||\n");
}

#[tokio::test]
async fn a_passed_deadline_is_unknown_and_kills_the_whole_group() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let script = format!("sleep 1000 & echo $! > {}; wait", note.path().display());
    let error = shell(&script, Duration::from_millis(700)).run().await.unwrap_err();
    assert!(matches!(error, CommandError::Silent { .. }), "{error}");
    assert!(!error.is_without_effect());
    until_dead(std::fs::read_to_string(note.path()).unwrap().trim().parse().unwrap()).await;
}

#[tokio::test]
async fn what_a_program_left_in_its_group_is_killed_when_it_ends() {
    let outcome = shell("sleep 1000 >/dev/null 2>&1 & echo $!", LONG).run().await.unwrap();
    until_dead(String::from_utf8_lossy(&outcome.stdout).trim().parse().unwrap()).await;
}

#[tokio::test]
async fn what_left_the_group_outlives_the_call_and_does_not_hold_it_up() {
    // The daemon keeps our pipes open: the call ends with its leader all the same.
    let outcome = shell("setsid sh -c 'echo $$ >&2; exec sleep 1000' & sleep 0.3; exit 0", LONG).run().await.unwrap();
    assert!(outcome.took < LONG / 2);
    let pid: i32 = String::from_utf8_lossy(&outcome.stderr).trim().parse().unwrap();
    assert!(is_alive(pid));
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_dropped_call_kills_its_group() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let call = shell(&format!("echo $$ > {}; exec sleep 1000", note.path().display()), LONG);
    let mut run = Box::pin(call.run());
    let pid = loop {
        let _ = tokio::time::timeout(Duration::from_millis(10), &mut run).await;
        if let Ok(pid) = std::fs::read_to_string(note.path()).unwrap().trim().parse() {
            break pid;
        }
    };
    drop(run);
    until_dead(pid).await;
}

#[tokio::test]
async fn output_beyond_the_limit_is_read_and_thrown_away() {
    let outcome = shell("head -c 3000000 /dev/zero; echo end >&2", LONG).output_bytes_max(1000).run().await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.is_cut_short), (1000, true));
    assert_eq!(outcome.summary(), "exit code 0: end");
}

#[tokio::test]
async fn a_secret_reaches_the_child_but_neither_arguments_nor_environment() {
    let call =
        shell("tr '\\0' ' ' < /proc/$$/environ; tr '\\0' ' ' < /proc/$$/cmdline; cat $ANTIPODE_SECRET_KEY >&2", LONG)
            .secret("key", "open sesame");
    assert!(!format!("{call:?}").contains("sesame"));
    let outcome = call.run().await.unwrap();
    assert_eq!(outcome.stderr, b"open sesame");
    assert!(!String::from_utf8_lossy(&outcome.stdout).contains("sesame"));
}

#[tokio::test]
async fn a_program_that_does_not_exist_had_no_effect() {
    assert!(matches!(Program::find("no-such-program-here"), Err(CommandError::NotFound { .. })));
    assert!(matches!(Program::find("bin/sh"), Err(CommandError::NotFound { .. })), "a relative path is no program");
    let error = shell("true", LONG).cgroup("/no/such/cgroup").run().await.unwrap_err();
    assert!(error.is_without_effect(), "{error}");
}

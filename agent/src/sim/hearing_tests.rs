//! What a host without a vote makes of hosts that don't speak to it: they beat to voters only.

use super::members_tests::{settled_with, spec};
use super::stories::*;
use super::*;
use crate::engine::Engine;

/// Tokyo and Osaka have a host each that doesn't vote.
fn with_two_that_listen(seed: u64) -> World {
    let witness = "[[host]]\nname = \"ng-1\"";
    let spec = spec().replace(witness, &format!("[[host]]\nname = \"tk-2\"\nsite = \"tokyo\"\n{witness}"));
    let hosts = [
        ("tk-1", "tokyo", Some(1)),
        ("tk-2", "tokyo", None),
        ("os-1", "osaka", Some(2)),
        ("os-2", "osaka", None),
        ("ng-1", "nagoya", Some(3)),
    ];
    settled_with(seed, &spec, &hosts)
}

fn state(world: &World, at: &str, of: &str) -> Option<&'static str> {
    let status = engine(world, at).map(Engine::status)?;
    status.hosts.iter().find(|line| line.name == of).map(|line| line.state)
}

fn site(world: &World, at: &str, of: &str) -> Option<&'static str> {
    let status = engine(world, at).map(Engine::status)?;
    status.sites.iter().find(|line| line.name == of).map(|line| line.state)
}

fn suspicion(world: &World) -> Option<String> {
    let text = |line: &Trace| line.text();
    world.trace.iter().map(text).find(|text| text.contains("\"suspect\"") && text.contains("\"os-2\""))
}

#[test]
fn a_host_without_a_vote_holds_nobody_silent_who_owes_it_no_word() {
    let mut world = with_two_that_listen(91);
    must(&mut world, 30, "os-2 is admitted", |world| state(world, "tk-2", "os-2") == Some("admitted"));
    pass(&mut world, 20);
    let seen = |world: &World, at: &str| (state(world, at, "os-2"), site(world, at, "osaka"));
    for at in ["tk-1", "tk-2", "ng-1"] {
        assert_eq!(seen(&world, at), (Some("admitted"), Some("healthy")), "seen by {at}");
    }
    assert_eq!(suspicion(&world), None);
}

#[test]
fn a_host_without_a_vote_takes_the_voters_word_for_the_silence_of_others() {
    let mut world = with_two_that_listen(92);
    must(&mut world, 30, "os-2 is admitted", |world| state(world, "tk-2", "os-2") == Some("admitted"));
    world.power_off(&host("os-2"));
    must(&mut world, 3, "tk-2 knows that os-2 is silent", |world| {
        matches!(state(world, "tk-2", "os-2"), Some("suspect" | "lost"))
    });
    assert_eq!(site(&world, "tk-2", "osaka"), Some("partial"));
    assert!(suspicion(&world).is_some(), "by those to whom it beats");
}

/// A leader looks who is healthy when something is decided, and while somebody is silent, whatever is decided.
#[test]
fn a_home_that_was_silent_for_a_moment_must_be_healthy_anew_before_its_group_comes_back() {
    let mut world = super::tests::settled(93);
    world.power_off(&host("tk-1"));
    must(&mut world, 20, "erp runs at osaka", |world| runs_on(world, "os-1"));
    world.power_on(&host("tk-1"));
    must(&mut world, 60, "erp is protected again", is_protected);
    pass(&mut world, 3);
    // The leader alone doesn't hear it: nothing is declared.
    world.cut(&host("tk-1"), &host("ng-1"), true);
    pass(&mut world, 1);
    assert_eq!(state(&world, "ng-1", "tk-1"), Some("suspect"), "{}", tail(&world));
    world.cut(&host("tk-1"), &host("ng-1"), false);
    let heard_again = world.now_ns;
    must(&mut world, 60, "erp has stopped for the way home", |world| !runs_on(world, "os-1"));
    let waited = (world.now_ns - heard_again) / 1_000_000;
    assert!(waited >= 5_000, "{}\nafter {waited} ms", tail(&world));
}

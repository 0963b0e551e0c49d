//! `GET /metrics` of a real agent.

use super::lab::Lab;

fn number(scraped: &str, name: &str) -> f64 {
    let line = scraped.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{scraped}")).parse().expect("a number")
}

#[test]
fn what_is_scraped_of_this_machine_is_read_for_that_scrape() {
    let lab = Lab::start();
    let first = lab.scrape();
    assert!(number(&first, "antipode_raft_term") >= 1.0);
    assert!(number(&first, "antipode_certificate_expires_timestamp_seconds") > 1.7e9);
    let frozen = lab.ask(&["freeze", "cluster", "--for", "1m", "--reason", "work"]);
    assert_eq!(frozen.exit, 0, "{frozen:?}");
    let commit = |scraped: &str| number(scraped, "antipode_raft_commit_index");
    assert!(commit(&lab.scrape()) > commit(&first), "the freeze was committed before it was answered");
}

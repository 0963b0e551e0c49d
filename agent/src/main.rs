//! The `antipode` binary.
fn main() {}

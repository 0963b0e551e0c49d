//! The `antipode` binary: parses the command line and ends with its exit status. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    antipode::cli::main()
}

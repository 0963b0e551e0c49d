//! The printable face of a [`Timing`]: what `antipode config timing` shows.

use super::Timing;
use std::fmt::Write as _;
use std::time::Duration;

impl Timing {
    /// A table of what was given, what follows from it and every relation, ending in the violations if there are
    /// any. Plain text, one item a line.
    pub fn describe(&self) -> String {
        let mut text = String::from("given\n");
        for (name, span) in self.spans() {
            row(&mut text, name, &milliseconds(span));
        }
        row(&mut text, "watchdog_spans", &self.watchdog_spans.to_string());
        row(&mut text, "lost_renewals", &self.lost_renewals.to_string());
        row(&mut text, "lost_beats", &self.lost_beats.to_string());
        row(&mut text, "rho", &format!("{} ppm", self.rho_ppm));
        text.push_str("computed\n");
        row(&mut text, "pet needs left", &milliseconds(self.pet_reserve()));
        row(&mut text, "voter waits L_v", &milliseconds(self.voter_wait()));
        row(&mut text, "ride-through T_tol", &milliseconds(self.ride_through()));
        row(&mut text, "ridden through surely", &milliseconds(self.ride_through_sure()));
        row(&mut text, "eager fence within", &milliseconds(self.eager_limit()));
        row(&mut text, "raft heartbeat", &milliseconds(self.raft_heartbeat()));
        let violations = self.check();
        if violations.is_empty() {
            text.push_str("every relation holds\n");
        }
        for violation in violations {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "VIOLATED {violation}");
        }
        text
    }
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<22} {value:>12}");
}

/// In milliseconds with as many decimals as there are, rounded up to a microsecond.
fn milliseconds(span: Duration) -> String {
    let micros = span.as_nanos().div_ceil(1_000);
    match micros % 1_000 {
        0 => format!("{} ms", micros / 1_000),
        rest => format!("{}.{rest:03} ms", micros / 1_000),
    }
}

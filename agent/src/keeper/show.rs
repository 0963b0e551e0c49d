//! The keeper's page as JSON, for people and tests: `antipode keeper --show`.
//!
//! Contract: keys are only added. Host epochs and epochs are printed as the rest of the product prints them.

use super::page::{Attestation, Page};
use crate::driver::clock;
use quorum::moment::Moment;
use serde_json::{Value, json};
use std::time::Duration;

/// The page as JSON, its ages counted until `now`.
pub fn as_json(page: &Page, now: Moment) -> Value {
    json!({
        "api_version": 1,
        "instance": page.instance.to_string(),
        "boot": page.boot.to_string(),
        "pid": page.pid,
        "state": page.state,
        "because": page.reason.text(),
        "retired_because": page.cause.text(),
        "order_refused_because": page.order.text(),
        "armed": page.armed.map(|he| he.to_string()),
        "retired": page.retired.to_string(),
        "echoed": page.echoed,
        "written_ms_ago": millis(now.held_since(page.written)),
        "last_pet_ms_ago": page.pet_age(now).map(millis),
        "late_max_ms": millis(page.late_max),
        "spans": page.spans,
        "worst_ms": millis(page.watchdog_worst),
        "delta_hw_ms": millis(page.delta_hw),
        "posture": page.posture,
        "device": {
            "kind": page.device.kind,
            "driver": page.device.driver(),
            "timeout_ms": millis(page.device.timeout),
            "nowayout": page.device.nowayout,
            "survives_reboot": page.device.survives_reboot,
            "sleep_masked": page.device.sleep_masked,
            "soft": page.device.soft,
            "guest": page.device.guest,
            "class_ceiling": page.device.ceiling(),
        },
        "helpers_took_ms": millis(page.helpers_took),
        "attestation": page.attestation.as_ref().map(attestation),
    })
}

fn attestation(attestation: &Attestation) -> Value {
    let gone: Vec<Value> = attestation
        .gone
        .iter()
        .map(|group| json!({ "group": group.name(), "epoch": group.epoch.to_string() }))
        .collect();
    json!({
        "boot": attestation.boot.to_string(),
        "host_epoch": attestation.he.to_string(),
        "at_boottime_ns": attestation.at.boot_ns,
        "gone": gone,
    })
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints the page of the keeper that works in `dir`.
///
/// # Errors
/// [`super::LinkError`] if there is none.
pub(super) fn print(dir: &std::path::Path) -> Result<(), super::LinkError> {
    let page = super::PageReader::open(dir)?.page()?;
    println!("{:#}", as_json(&page, clock::now()));
    Ok(())
}

//! Metrics of continuous proof: how old, how slow and how often failed the readings of each fence device are.

use super::{labelled, seconds};
use fencing::executor::Status;
use prometheus::{GaugeVec, Registry};
use std::time::Duration;

/// Metrics of the fence devices that this host drives.
#[derive(Debug)]
pub(super) struct FencingMetrics {
    age: GaugeVec,
    latency: GaugeVec,
    failures: GaugeVec,
    ready: GaugeVec,
    attention: GaugeVec,
    under_way: GaugeVec,
}

impl FencingMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let device = ["device", "kind"];
        Self {
            age: labelled(
                r,
                ("antipode_fence_proof_age_seconds", &device),
                "Age of a fence device's last good reading; absent if there is none",
            ),
            latency: labelled(r, ("antipode_fence_latency_seconds", &device), "How long that reading took"),
            failures: labelled(
                r,
                ("antipode_fence_failures_in_a_row", &device),
                "Failed readings since the last good one",
            ),
            ready: labelled(
                r,
                ("antipode_fence_level_ready", &["host", "level"]),
                "1 if a fencing level could prove its host harmless now",
            ),
            attention: labelled(
                r,
                ("antipode_fence_attention", &["code", "subject"]),
                "Things about fencing that a person should look at",
            ),
            under_way: labelled(r, ("antipode_fence_under_way", &["host"]), "1 while a host is being fenced from here"),
        }
    }

    pub(super) fn update(&self, status: &Status) {
        for labelled in [&self.age, &self.latency, &self.failures, &self.ready, &self.attention, &self.under_way] {
            labelled.reset();
        }
        for device in &status.devices {
            let labels = [device.facts.name.as_str(), device.facts.kind];
            if !device.facts.proves.is_evidence() {
                continue;
            }
            let show = |gauge: &GaugeVec, span: Option<Duration>| {
                if let Some(span) = span {
                    gauge.with_label_values(&labels).set(seconds(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
                }
            };
            show(&self.age, device.proof_age);
            show(&self.latency, device.latency);
            self.failures.with_label_values(&labels).set(f64::from(device.failures_in_a_row));
        }
        for outlook in &status.outlook {
            let level = outlook.level.to_string();
            self.ready.with_label_values(&[outlook.host.as_str(), &level]).set(f64::from(u8::from(outlook.ready)));
        }
        for attention in &status.attention {
            self.attention.with_label_values(&[attention.code, &attention.subject]).set(1.0);
        }
        for host in &status.under_way {
            self.under_way.with_label_values(&[host.as_str()]).set(1.0);
        }
    }
}

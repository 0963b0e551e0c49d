//! Metrics of continuous proof: how old, how slow and how often failed the readings of each fence device are.

use super::table::{Table, seconds};
use fencing::executor::Status;
use prometheus::GaugeVec;
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
    pub(super) fn new(t: &mut Table) -> Self {
        let device = ["device", "kind"];
        Self {
            age: t.gauges(
                "antipode_fence_proof_age_seconds",
                &device,
                "Age of a fence device's last good reading; absent if there is none",
            ),
            latency: t.gauges("antipode_fence_latency_seconds", &device, "How long that reading took"),
            failures: t.gauges("antipode_fence_failures_in_a_row", &device, "Failed readings since the last good one"),
            ready: t.gauges(
                "antipode_fence_level_ready",
                &["host", "level"],
                "1 if a fencing level could prove its host harmless now",
            ),
            attention: t.gauges(
                "antipode_fence_attention",
                &["code", "subject"],
                "Things about fencing that a person should look at",
            ),
            under_way: t.gauges("antipode_fence_under_way", &["host"], "1 while a host is being fenced from here"),
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

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use fencing::{Executor, FencingConfig};

    /// A device that answers nothing, and what is shown of it once it was asked.
    #[tokio::test]
    async fn a_device_that_fails_shows_its_failures_and_no_age() {
        let home = tempfile::tempdir().expect("a folder");
        let config = FencingConfig::parse(
            "[[host]]\nname = 'tk-1'\nfencing = [['bmc'], ['self']]\n\
             [[device]]\nname = 'bmc'\nkind = 'command'\nprogram = '/bin/false'\nwired = 'ops-1'\n",
        );
        let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
        let handle = Executor::start(&config, home.path()).expect("an executor");
        let tested = handle.probe_all().await;
        assert!(tested.iter().any(|tested| tested.trouble.is_some()), "{tested:?}");
        let metrics = Metrics::new();
        metrics.update_fencing(&handle.status());
        let shown = metrics.render();
        for line in [
            "antipode_fence_failures_in_a_row{device=\"bmc\",kind=\"command\"} 1",
            "antipode_fence_level_ready{host=\"tk-1\",level=\"1\"} 0",
            "antipode_fence_attention{code=\"device-failing\",subject=\"bmc\"} 1",
        ] {
            assert!(shown.contains(line), "{line} is missing in\n{shown}");
        }
        assert!(!shown.contains("antipode_fence_proof_age_seconds{"), "{shown}");
    }
}

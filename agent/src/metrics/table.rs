//! Every metric is made here, and what it is called is kept for the table in the documentation.

use prometheus::core::Collector;
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, Opts, Registry};

/// A metric as the documentation shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// gauge, counter or histogram.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// Makes metrics and remembers them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

impl Table {
    fn keep<C: Collector + Clone + 'static>(&mut self, metric: C, (kind, labels): (&'static str, &[&str])) -> C {
        let about = metric.desc().first().map(|desc| (desc.fq_name.clone(), desc.help.clone())).unwrap_or_default();
        let labels = labels.iter().map(ToString::to_string).collect();
        self.described.push(Described { name: about.0, kind, labels, help: about.1 });
        self.registry.register(Box::new(metric.clone())).expect("each name is registered once");
        metric
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.keep(Gauge::new(name, help).expect("a fixed name is a good one"), ("gauge", &[]))
    }

    pub(super) fn gauges(&mut self, name: &str, labels: &[&str], help: &str) -> GaugeVec {
        let made = GaugeVec::new(Opts::new(name, help), labels).expect("a fixed name is a good one");
        self.keep(made, ("gauge", labels))
    }

    pub(super) fn counters(&mut self, name: &str, labels: &[&str], help: &str) -> CounterVec {
        let made = CounterVec::new(Opts::new(name, help), labels).expect("a fixed name is a good one");
        self.keep(made, ("counter", labels))
    }

    pub(super) fn histogram(&mut self, name: &str, buckets: &[f64], help: &str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = Histogram::with_opts(options).expect("fixed buckets are good ones");
        self.keep(made, ("histogram", &[]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has only floating point; 2^53 is far away")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

pub(super) fn seconds(ms: u64) -> f64 {
    float(ms) / 1e3
}

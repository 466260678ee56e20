//! The control plane's metric families, by the exporter crate.
//!
//! Each instance has its own, so that several in one process do not count into each other. The data plane keeps its own
//! counters per worker and appends its families to the page (see `live::page`): a macro call per request would cost more
//! than the request's decision.

use std::fmt;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::names;

/// How often [`Exporter::upkeep`] must run: without it each histogram sample stays in memory until a scrape.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// One instance's control-plane families.
pub struct Exporter {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl Default for Exporter {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, names::describe);
        Self { recorder, handle }
    }
}

impl Exporter {
    /// The families known so far, in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves what was recorded into the exporter's buckets.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Adds one to a counter.
    pub fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.count_by(name, labels, 1);
    }

    /// Adds `by` to a counter.
    pub fn count_by(&self, name: &'static str, labels: &[(&'static str, &str)], by: u64) {
        let labels: Vec<metrics::Label> = labels
            .iter()
            .map(|(k, v)| metrics::Label::new(*k, (*v).to_owned()))
            .collect();
        #[allow(clippy::disallowed_macros, reason = "the one place that records")]
        metrics::with_local_recorder(&self.recorder, || metrics::counter!(name, labels).increment(by));
    }
}

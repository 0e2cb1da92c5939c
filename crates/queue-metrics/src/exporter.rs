//! The Prometheus exporter.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::task::JoinHandle;

use crate::catalog;
use crate::metrics_observer::Metrics;

/// Renders what [`Metrics`] recorded as Prometheus text and, when asked, serves it over HTTP.
pub struct Exporter {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    server: Option<JoinHandle<()>>,
}

/// Why an exporter could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The address cannot be listened on.
    #[error("cannot serve metrics on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The process has a global recorder already.
    #[error("this process has a recorder of metrics already")]
    Installed,
}

impl Exporter {
    /// An exporter of its own, for [`render`](Self::render): nothing is served. Call [`upkeep`](Self::upkeep) or
    /// `render` every few seconds, else what histograms record piles up.
    #[must_use]
    pub fn new() -> Self {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle, server: None }
    }

    /// An exporter that answers `GET /metrics` on this address until it is dropped, and does its own upkeep. Call it within
    /// a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn serve(address: SocketAddr) -> Result<Self, ExporterError> {
        let failed = |reason: String| ExporterError::Listen { address, reason };
        let (recorder, serving) =
            builder().with_http_listener(address).build().map_err(|error| failed(reason(&error.to_string())))?;
        let server = tokio::spawn(async move {
            // It ends with the process; an error in serving one scrape is told by the exporter itself.
            let _ = serving.await;
        });
        let handle = recorder.handle();
        Ok(Self { recorder: Arc::new(recorder), handle, server: Some(server) })
    }

    /// Makes this the recorder of the whole process, so that what other libraries record is exported as well.
    ///
    /// # Errors
    ///
    /// When the process has one already.
    pub fn install(&self) -> Result<(), ExporterError> {
        metrics::set_global_recorder(self.recorder.clone()).map_err(|_| ExporterError::Installed)
    }

    /// An observer that records into this exporter.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::recording_to(self.recorder.clone())
    }

    /// Everything recorded so far, as Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts what histograms recorded into their buckets.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("serves", &self.server.is_some()).finish_non_exhaustive()
    }
}

/// What the builder said, without its own introduction.
fn reason(said: &str) -> String {
    said.strip_prefix("failed to create HTTP listener: ").unwrap_or(said).to_owned()
}

fn builder() -> PrometheusBuilder {
    catalog::ALL.iter().fold(PrometheusBuilder::new(), |builder, metric| {
        let buckets = metric.buckets();
        if buckets.is_empty() {
            return builder;
        }
        builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &buckets)
            .expect("the list of buckets is not empty")
    })
}

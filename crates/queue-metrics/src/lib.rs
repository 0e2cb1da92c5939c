//! Prometheus metrics of the queue. Promise: **the number of series is bounded**, whatever the database or a producer
//! says, and names, labels and their values are stable.
//!
//! [`Metrics`] is the [`Observer`](queue_core::Observer) that a pool and a client report to. It records through the
//! [`metrics`] facade, so that any exporter can serve it; [`Exporter`] is one, with an HTTP endpoint:
//!
//! ```
//! use queue_core::{Observation, Observer as _};
//! use queue_metrics::Exporter;
//!
//! let exporter = Exporter::new();
//! exporter.metrics().observe(&Observation::InFlight(3));
//! assert!(exporter.render().contains("tasks_in_flight 3"));
//! ```
//!
//! The metrics are listed in [`catalog`].

pub mod catalog;
mod exporter;
mod labels;
mod metrics_observer;

pub use exporter::{Exporter, ExporterError};
pub use metrics_observer::Metrics;

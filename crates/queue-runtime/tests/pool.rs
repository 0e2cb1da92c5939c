//! The pool over the reference store, in virtual time: what the classic system did, by name, and what happens when things
//! go wrong.

#[path = "pool/faulty.rs"]
mod faulty;
#[path = "pool/support.rs"]
mod support;

#[path = "pool/cancelling.rs"]
mod cancelling;
#[path = "pool/claims.rs"]
mod claims;
#[path = "pool/classic.rs"]
mod classic;
#[path = "pool/completing.rs"]
mod completing;
#[path = "pool/limits.rs"]
mod limits;
#[path = "pool/observed.rs"]
mod observed;
#[path = "pool/port_errors.rs"]
mod port_errors;
#[path = "pool/reaping.rs"]
mod reaping;
#[path = "pool/replaying.rs"]
mod replaying;
#[path = "pool/retention.rs"]
mod retention;
#[path = "pool/runners.rs"]
mod runners;
#[path = "pool/sessions.rs"]
mod sessions;
#[path = "pool/shutdown.rs"]
mod shutdown;
#[path = "pool/trips.rs"]
mod trips;

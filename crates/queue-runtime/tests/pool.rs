//! The pool over the reference store, in virtual time: what the classic system did, by name, and what happens when things
//! go wrong.

#[path = "pool/support.rs"]
mod support;

#[path = "pool/classic.rs"]
mod classic;

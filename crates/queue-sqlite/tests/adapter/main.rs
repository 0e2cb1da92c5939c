//! What is the SQLite adapter's own: files, several processes, foreign hands.

mod corrupt;
mod opening;
mod runs;
mod sharing;
mod support;
mod transaction;

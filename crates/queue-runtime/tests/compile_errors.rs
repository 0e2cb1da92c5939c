//! What the compiler says when a handler or a queue is used wrong. The snapshots are those of one compiler version; see
//! `tests/ui`. To renew them: `TRYBUILD=overwrite cargo test -p queue-runtime --test compile_errors`.

#[test]
fn mistakes_are_told_at_their_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

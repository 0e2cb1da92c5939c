//! The master list. A test below holds that it leaves no case out.

/// Hands the whole list, topic by topic, to a macro of this crate, after what was given for it.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($callback:ident $($given:tt)*) => {
        $crate::$callback! {
            $($given)*
            migrate {
                is_done_and_can_be_repeated
                is_safe_when_many_do_it_at_once
            }
            enqueue {
                ids_rise
                concurrent_reservations_share_no_id
                gaps_and_late_ids_are_fine
                keeps_what_the_producer_said
                keeps_every_policy
                answers_in_order
                a_delay_counts_from_the_stores_now
                a_start_in_the_past_is_now
                a_start_in_the_future_is_exact
                a_repeat_changes_nothing
                concurrent_repeats_write_once
                another_nonce_is_corrupt
                a_payload_over_the_limit_refuses_the_batch
                a_batch_over_the_limit_is_refused
                a_batch_over_the_limit_in_bytes_is_refused
                concurrent_producers_write_everything
                what_was_not_enqueued_is_not_there
            }
            keys {
                a_repeated_key_finds_the_first_task
                another_payload_is_a_conflict
                keys_belong_to_a_type
                a_key_twice_in_a_batch_is_a_repeat
                the_first_of_a_batch_counts_and_not_the_lowest_id
                a_batch_can_be_in_conflict_with_itself
                keys_are_exact
                concurrent_enqueues_with_one_key_write_one_task
                keys_in_opposite_orders_do_not_deadlock
                a_key_outlives_its_task
                a_repeat_knows_its_own_key
                a_deleted_task_frees_its_key
            }
            roundtrip {
                payloads_come_back_exactly
                results_come_back_exactly
                a_result_over_the_limit_is_dropped_and_flagged
                errors_come_back_exactly
                progress_comes_back_exactly
                names_and_priorities_are_exact
                retry_policies_come_back
            }
            claim {
                takes_a_task_and_marks_it
                of_nothing_is_empty
                leaves_what_is_not_due
                takes_what_becomes_due
                says_whether_there_is_more
                the_next_due_time_is_that_of_its_scope
                takes_the_higher_priority_first
                takes_the_earlier_due_time_first
                finds_what_comes_in_behind
                takes_only_its_types
                finds_a_rare_type_behind_many
                takes_only_from_its_queues
                fails_unregistered_types_where_told
                expires_what_has_no_budget_left
                of_an_unknown_session_is_fenced
                raises_attempt_and_fence
            }
            capacity {
                bounds_the_tasks
                may_be_without_bound
                bounds_the_bytes
                a_task_larger_than_the_bytes_is_taken_alone
                bounds_each_type
                a_full_type_hides_no_other
                bounds_the_suspects
                suspects_go_beside_ordinary_tasks
                many_suspects_hide_no_ordinary_task
                what_has_no_room_is_still_due
                what_does_not_fit_is_still_due
            }
            turns {
                a_long_queue_starves_no_other
                even_when_one_task_is_taken_at_a_time
                priority_does_not_reach_over_queues
            }
            pause {
                a_paused_queue_is_not_claimed
                an_unused_queue_can_be_paused
                tells_by_whom_and_why
                long_texts_are_cut
                what_runs_goes_on
            }
            sessions {
                a_session_is_listed_as_it_was_opened
                live_sessions_are_counted
                long_names_are_cut
                opening_again_renews
                a_renewal_runs_from_now
                an_unknown_session_is_fenced
                a_late_session_that_nobody_fenced_goes_on
                what_is_past_its_lease_is_fenced
                fencing_races_renewing
                closing_fences_at_once
                closing_is_repeatable
                are_listed_with_what_they_hold
                a_drain_is_told
                a_renewal_tells_what_is_paused
                many_renew_while_they_claim
            }
            resolve {
                a_committed_claim_is_told_whole
                tells_only_what_is_still_held
                a_void_claim_can_never_be_committed
                housekeeping_revives_no_void_claim
                a_void_claim_outlives_its_session
                a_fenced_sessions_claim_is_told
                resolving_races_claiming
                a_dropped_claim_can_be_resolved
            }
            settle {
                every_settlement_is_applied_as_the_core_says
                a_repeated_settle_is_already_there
                a_claim_that_is_not_current_is_stale
                a_reaped_task_is_stale_for_its_holder
                a_settled_task_is_stale_for_the_reaper
                a_deleted_task_is_stale
                a_stale_item_leaves_the_others_applied
                a_settle_twice_in_a_batch_is_applied_once
                two_ends_in_a_batch_are_judged_in_order
                an_empty_batch_is_fine
                the_longest_delays_are_kept
                a_full_batch_is_applied
                settles_and_claims_in_one_trip
                a_trip_of_a_fenced_session_settles
                a_claim_is_settled_in_parts
            }
            attempts {
                failed_attempts_are_kept
                an_end_without_an_error_leaves_the_last_one
                success_leaves_no_history
                an_end_without_a_run_is_no_attempt
                no_more_than_a_hundred_are_told
                only_failures_count
            }
            progress {
                is_recorded
                of_a_stale_claim_is_dropped
                of_one_task_is_that_of_its_current_claim
                of_others_is_not_affected_by_a_stale_one
                stays_when_a_run_ends
            }
            reaper {
                tells_tasks_of_fenced_sessions
                finding_changes_nothing
                tells_no_more_than_the_limit
                a_lost_task_is_run_again_by_another
                a_task_that_kills_its_workers_crashes
                a_cancel_request_is_told_of_a_lost_task
                the_row_stays_as_long_as_a_task_is_held
                several_reapers_recover_each_task_once
                the_time_is_the_stores
            }
            budgets {
                a_sweep_fails_what_is_spent
                repeated_sweeps_look_at_everything
                an_empty_sweep_finishes
                what_runs_is_not_swept
                a_task_between_attempts_is_swept
                two_sweepers_fail_each_task_once
            }
            cancel {
                a_waiting_task_fails_at_once
                a_running_task_is_signalled
                a_completion_may_win
                a_request_does_not_reach_the_next_run
                a_request_races_a_settle
                what_has_ended_is_refused
            }
            act {
                a_retry_grants_everything_afresh
                a_retry_of_a_spent_budget_runs
                a_retry_of_anything_else_is_refused
                a_settle_after_a_retry_writes_nothing
                deleting_leaves_no_trace
                one_answer_for_each_task
                a_long_selection_is_worked_off
                a_filter_selects_in_the_order_of_its_list
                an_empty_filter_is_refused
                a_task_named_twice_is_one
            }
            listing {
                lists_are_in_order_and_have_no_gaps
                every_condition_must_hold
                a_list_leaves_payload_and_result_empty
                empty_pages_are_fine
            }
            stats {
                tasks_are_counted_by_queue
                the_oldest_due_task_is_told
                a_queue_once_used_stays_known
                live_sessions_are_counted
            }
            prune {
                removes_what_has_ended
                removes_only_the_status_asked_for
                keeps_what_ended_lately
                removes_the_oldest_first
                a_retried_task_has_not_ended
            }
            busy {
                from_due_to_ended
                what_waits_to_be_run_again
                not_what_is_due_later
                not_what_is_paused
                only_what_is_in_scope
            }
            races {
                concurrent_claims_share_no_task
                producers_and_workers_finish_everything_once
                a_holder_and_a_reaper_race
                a_settle_races_its_own_repeat
                settles_in_opposite_orders_do_not_deadlock
                operators_race_claims
            }
            histories {
                a_long_history_leaves_no_ghosts
                another_history_leaves_no_ghosts
                attempts_and_fences_add_up
            }
        }
    };
}

/// Makes one test of each case of the conformance suite. Its argument is an async function that returns a
/// [`Fixture`](crate::conformance::Fixture): a store, empty and migrated, or a store with what must be cleared away after it.
///
/// ```
/// mod memory {
///     use queue_testkit::MemoryStore;
///
///     async fn fresh() -> MemoryStore {
///         MemoryStore::new()
///     }
///
///     queue_testkit::conformance!(fresh);
/// }
/// ```
///
/// The tests are in modules by topic: `memory::claim::takes_a_task_and_marks_it`.
#[macro_export]
macro_rules! conformance {
    ($fresh:path) => {
        $crate::__conformance_cases! { __conformance_tests [$fresh] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ([$fresh:path] $($topic:ident { $($case:ident)+ })+) => {
        $(
            mod $topic {
                #[allow(unused_imports, reason = "a path to the function that is absolute needs none")]
                use super::*;

                $(
                    #[test]
                    fn $case() {
                        $crate::conformance::run($fresh, $crate::conformance::$topic::$case);
                    }
                )+
            }
        )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_names {
    ($($topic:ident { $($case:ident)+ })+) => {
        &[$($((stringify!($topic), stringify!($case)),)+)+]
    };
}

/// Every case: its topic and its name.
pub const CASES: &[(&str, &str)] = crate::__conformance_cases!(__conformance_names);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_case_is_on_the_list() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
        let mut written = BTreeSet::new();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let topic = path.file_stem().unwrap().to_str().unwrap().to_owned();
            for line in fs::read_to_string(&path).unwrap().lines() {
                if let Some(name) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split('(').next()) {
                    written.insert((topic.clone(), name.to_owned()));
                }
            }
        }
        let listed: BTreeSet<_> = CASES.iter().map(|(topic, name)| ((*topic).to_owned(), (*name).to_owned())).collect();
        assert_eq!(listed.len(), CASES.len());
        assert_eq!(listed, written);
    }
}

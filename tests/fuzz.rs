//! What no input may do, tried with many: the laws of `fuzz/targets.rs`, over the corpora beside it and over bytes that
//! a seed makes of them.
//!
//! A failing input is printed; it becomes a file in its corpus. `UNDERSTUDY_LONG=1` runs each target for minutes;
//! `UNDERSTUDY_SEED=<seed>` repeats a run. `fuzz/guided` has the same laws for a fuzzer that sees what its inputs reach.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "tests read clocks and start runtimes as they like"
)]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "each binary of tests uses its part")]
mod random;
#[path = "fuzz/targets.rs"]
mod targets;

macro_rules! fuzzed {
    ($($name:ident: $target:ident;)*) => { $(
        #[test]
        fn $name() {
            mutate::run(stringify!($target), targets::$target);
        }
    )* };
}

fuzzed! {
    a_configuration_is_taken_or_refused_with_reasons: config;
    answers_are_compared_alike_from_both_sides: compare;
    answers_of_backends_end_where_the_strictest_reader_sees_their_end: answers;
    frames_are_counted_alike_however_they_are_cut: frames;
    json_differs_from_other_json_alike_from_both_sides: diff;
    rules_are_taken_or_refused_and_more_percent_takes_nobody_back: rules;
    shoppers_are_those_that_a_json_reader_sees: identity;
    the_beginning_of_a_connection_is_a_proxy_header_or_none: proxy_protocol;
    where_a_message_ends_is_seen_alike_by_guard_and_library: forwarding;
}

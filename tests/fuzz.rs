//! What no input may do, tried with many: the laws of `fuzz/targets.rs`, over the corpora beside it and over bytes that
//! a seed makes of them.
//!
//! A failing input is printed; it becomes a file in its corpus. `UNDERSTUDY_LONG=1` runs each target for minutes;
//! `UNDERSTUDY_SEED=<seed>` repeats a run.

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
    json_differs_from_other_json_alike_from_both_sides: diff;
    rules_are_taken_or_refused_and_more_percent_takes_nobody_back: rules;
    shoppers_are_those_that_a_json_reader_sees: identity;
    where_a_message_ends_is_seen_alike_by_guard_and_library: forwarding;
}

//! Every metric name, once.
//!
//! `feature_*` and the five names of the rollout guide stay as they were promised; ours read
//! `understudy_<noun>_<unit>[_total]`. `docs/metrics.md` explains each, and a test holds the two together.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:ident $text:literal, $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $name: &str = $text;)*

        /// Every name with its kind (`counter`, `gauge`, `histogram`) and its help text, in the order of this file.
        pub const ALL: &[(&str, &str, &str)] = &[$(($text, stringify!($kind), $help)),*];
    };
}

names! {
    ASSIGNMENTS = counter "routing_assignments_count", "Requests by the side that was to serve them.";
    PUBLISHED = counter "canonical_events_published_count", "Runs on the new path that were answered with 2xx.";
    PUBLISH_FAILED = counter "canonical_publish_fail_count", "Runs on the new path that were not answered with 2xx.";
    DIVERGENCES = counter "divergence_count", "Compared requests whose answers differed, by the worst severity found.";
    LATENCY = histogram "latency_ms", "Milliseconds from the last byte of a request to the end of the answer's headers, by side.";

    FLAG_EVALUATIONS = counter "feature_flag_evaluations_total", "Flag evaluations by result.";
    FLAG_DURATION = histogram "feature_flag_evaluation_duration_seconds", "Time of one decision, sampled 1 in 1,024.";
    FLAG_ERRORS = counter "feature_flag_errors_total", "Evaluations without an answer, by what was missing.";
    FLAG_CACHE_HITS = counter "feature_flag_cache_hits_total", "Bulk requests of clients that had an answer, by whether it still was the right one.";
    KILLS = counter "feature_kill_switches_activated_total", "Kills that came into force, by what was killed and by whom.";

    DECISIONS = counter "understudy_decisions_total", "Requests by the reason of their decision.";
    RESPONSES = counter "understudy_responses_total", "Answers given to clients, by the side that gave them and by status class.";
    RUNS_FAILED = counter "understudy_runs_failed_total", "Runs without a usable answer, by side and kind.";
    FAILOVERS = counter "understudy_failovers_total", "Requests that the new path failed and legacy answered, by class.";
    COPIES = counter "understudy_copies_total", "Copies that were sent to the side that does not serve.";
    COPIES_SKIPPED = counter "understudy_copies_skipped_total", "Copies that were not sent, by side and reason.";
    COMPARED = counter "understudy_compared_total", "Exchanges compared, by verdict.";
    NOT_COMPARED = counter "understudy_not_compared_total", "Exchanges that should have been compared and were not, by reason.";
    SUPPRESSED = counter "understudy_differences_suppressed_total", "Differences that an ignore rule suppressed.";
    OFREP_REQUESTS = counter "understudy_ofrep_requests_total", "Requests for flags over OFREP and the evaluation API, by what they came to.";
    OFREP_STREAMS = gauge "understudy_ofrep_streams", "Open event streams of OFREP clients.";
    UNIDENTIFIED = counter "understudy_requests_without_identity_total", "Requests of a route without a subject, by reason.";
    ANSWERS_MADE = counter "understudy_answers_made_total", "Answers that the sidecar gave in place of a backend, by reason.";
    CLIENT_ERRORS = counter "understudy_client_errors_total", "Client connections ended for what arrived on them, by reason.";
    CONNECTIONS = gauge "understudy_connections", "Open client connections.";
    REQUESTS = counter "understudy_requests_total", "Requests that arrived and were not refused for what they look like.";
    ABANDONED = counter "understudy_requests_abandoned_total", "Requests whose client left before an answer to them began.";
    ACCEPTED = counter "understudy_connections_accepted_total", "Client connections accepted.";
    HANDSHAKES = counter "understudy_tls_handshakes_total", "TLS handshakes with clients that came about, by version.";
    HANDSHAKES_FAILED = counter "understudy_tls_handshakes_failed_total", "TLS handshakes with clients that came to nothing, by reason.";
    CERTIFICATE_ENDS = gauge "understudy_tls_certificate_not_after_seconds", "When a listener's certificate ends, in seconds since 1970, by its place in the configuration.";
    IN_FLIGHT = gauge "understudy_requests_in_flight", "Requests under way, by backend.";
    ADDRESSES = gauge "understudy_backend_addresses", "Addresses known of a backend, by whether they are in service.";
    EJECTIONS = counter "understudy_backend_ejections_total", "Addresses of a backend taken out of service, by reason.";
    HEALTH_CHECKS = counter "understudy_backend_health_checks_total", "Health checks of a backend's addresses, by result.";
    LOOKUPS = counter "understudy_backend_lookups_total", "Look-ups of a backend's names, by result.";
    TUNNELS = gauge "understudy_tunnels", "Open tunnels: connections that changed their protocol, by side.";
    TUNNELS_ENDED = counter "understudy_tunnels_ended_total", "Tunnels that ended, by side and reason.";
    TUNNEL_BYTES = counter "understudy_tunnel_bytes_total", "Bytes through tunnels that have ended, by direction.";
    CAPTURE_BYTES = gauge "understudy_capture_bytes", "Bytes of bodies held for identity, failover, shadow and comparison.";
    OUTCOMES_LOST = counter "understudy_outcomes_lost_total", "Outcomes that the guard never saw because its ring was full.";
    RULES_REVISION = gauge "understudy_rules_revision", "Number of the rules that serve.";
    RULES_REFUSED = gauge "understudy_rules_refused", "1 while the newest rules on disk are refused and older ones serve.";
    RELOADS = counter "understudy_reloads_total", "Reloads by result.";
    STALE = gauge "understudy_flags_stale", "Flags that are stale, by why.";
    KILLED = gauge "understudy_killed", "1 for each kill in force.";
    HELD = gauge "understudy_subjects_held", "Subjects held on legacy.";
    UNSTORED = gauge "understudy_kills_unstored", "Kills in force that are not yet on disk.";
    STATE_READABLE = gauge "understudy_state_readable", "0 when the state could not be read at the start: legacy only.";
    LOG_LINES_DROPPED = counter "understudy_log_lines_dropped_total", "Log lines that were dropped because nobody took them.";
    PANICS = counter "understudy_panics_total", "Tasks of the sidecar that panicked; anything but 0 is a bug.";
}

/// Tells the exporter what its families mean.
pub(super) fn describe() {
    for (name, kind, help) in ALL {
        match *kind {
            "counter" => metrics::describe_counter!(*name, *help),
            "gauge" => metrics::describe_gauge!(*name, *help),
            _ => metrics::describe_histogram!(*name, *help),
        }
    }
}

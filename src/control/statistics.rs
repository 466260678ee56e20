//! Keeps what was counted, now and then, on a thread that may wait for the disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::engine::stats::stale::Stale;
use crate::engine::stats::usage::hour_of;
use crate::live::Live;
use crate::live::stale::{self, StaleFlag};
use crate::store::{Statistics, StoreError};
use crate::telemetry::clock;

/// How often counters are looked at: so exact is the border between two hours.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// So many looks make a portion for the disk.
const LOOKS_PER_PORTION: u32 = 6;

/// The statistics of an instance, and where they are kept.
#[derive(Debug)]
pub struct Keeper {
    live: Arc<Live>,
    /// None where the file cannot be used: then what is counted lasts as long as the process.
    statistics: Option<Statistics>,
}

impl Keeper {
    /// Reads what was kept.
    #[must_use]
    pub fn start(live: Arc<Live>, state: &std::path::Path) -> Arc<Self> {
        let opened = Statistics::open(state).map_err(|error| error.to_string());
        let opened = opened.and_then(|statistics| {
            let kept = statistics.usage().map_err(|error| error.to_string())?;
            live.usage.load(kept);
            Ok(statistics)
        });
        let statistics = match opened {
            Ok(statistics) => Some(statistics),
            Err(error) => {
                tracing::warn!(error, "statistics are not kept over a restart");
                None
            }
        };
        Arc::new(Self { live, statistics })
    }

    /// Looks at the counters and for stale flags for ever, and keeps what they say.
    pub async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut refused) = (0_u32, false);
        loop {
            interval.tick().await;
            self.look_for_stale(clock::unix_ms());
            looks = (looks + 1) % LOOKS_PER_PORTION;
            if looks != 0 {
                continue;
            }
            let kept = self.keep().await;
            match &kept {
                Ok(()) if refused => tracing::info!("statistics are kept again"),
                Err(error) if !refused => {
                    tracing::warn!(%error, "statistics could not be written; they wait in memory");
                }
                _ => {}
            }
            refused = kept.is_err();
        }
    }

    /// Tells of each flag that has become stale since the look before.
    fn look_for_stale(&self, now: i64) {
        let Some(snapshot) = self.live.snapshot() else { return };
        let after = snapshot.stale_after;
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let days = after.as_secs() / 86_400;
        for StaleFlag { flag, verdict } in self
            .live
            .stale
            .take_over(&stale::stale(&self.live, &snapshot, now, after_ms))
        {
            let word = match verdict.stale {
                Stale::AlwaysOff => "desabilitada",
                Stale::AlwaysOn => "habilitada",
                other => {
                    tracing::warn!(event = "stale_flag", flag_name = %flag, reason = other.as_str(), "a flag is stale; {}", other.remedy());
                    continue;
                }
            };
            let reason = verdict.stale.as_str();
            tracing::warn!(event = "stale_flag", flag_name = %flag, reason, "Flag '{flag}' sempre {word} por {days} dias");
            tracing::warn!(event = "stale_flag", flag_name = %flag, reason, "Considere remover a flag '{flag}' ou verificar a sua configuração");
        }
    }

    /// Writes what is not on disk yet. What could not be written comes with the next portion.
    ///
    /// # Errors
    /// That of the disk.
    pub async fn keep(self: &Arc<Self>) -> Result<(), StoreError> {
        let keeper = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || keeper.write()).await;
        kept.unwrap_or(Err(StoreError::Closed))
    }

    fn write(&self) -> Result<(), StoreError> {
        let now = clock::unix_ms();
        self.live.usage.look(&self.live.registry, now);
        let portion = self.live.usage.take_unstored();
        let Some(statistics) = &self.statistics else {
            return Ok(());
        };
        let hours = portion
            .hours
            .iter()
            .map(|((flag, hour), counts)| (&**flag, *hour, *counts));
        let seen = portion.seen.iter().map(|(flag, seen)| (&**flag, *seen));
        let kept = statistics.keep_usage(hours, seen, hour_of(now));
        if kept.is_err() {
            self.live.usage.put_back(portion);
        }
        kept
    }
}

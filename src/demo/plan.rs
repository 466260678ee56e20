//! What the operator writes: the configuration, the tokens file, and the flag file of each phase.
//!
//! Pure.

use std::net::SocketAddr;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::shoppers::{CANARIES, TESTER};
use super::webhook::PATH;

/// The one route.
pub const ROUTE: &str = "whatsapp";
/// The flag that chooses who is on the new path.
pub const FLAG: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED";
/// How much slower than legacy the new path may be. Three times as slow is far beyond it, and a busy machine, which
/// delays both sides, is not.
pub const TOLERATED_SLOWNESS: f64 = 2.0;

/// Who is on the new path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody: the flag is off.
    Nobody,
    /// The tester.
    Tester,
    /// The three shoppers of the canary.
    Canaries,
    /// The shoppers in the first buckets, in percent.
    Percent(u32),
}

/// One phase of the rollout.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name in the guide.
    pub name: &'static str,
    /// Who is on the new path.
    pub who: Who,
    /// Whether those are copied only.
    pub shadow: bool,
    /// Whether both answers are compared.
    pub dual_run: bool,
}

impl Who {
    /// In a few words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Nobody => "flag off".to_owned(),
            Self::Tester => "one test shopper".to_owned(),
            Self::Canaries => "three shoppers".to_owned(),
            Self::Percent(percent) => format!("{percent} %"),
        }
    }

    /// Whether this shopper is among them, computed beside the product.
    #[must_use]
    pub fn has(self, number: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Tester => number == TESTER,
            Self::Canaries => CANARIES.contains(&number),
            Self::Percent(percent) => super::shoppers::taken(number, FLAG, percent),
        }
    }
}

/// The flag file of a phase.
#[must_use]
pub fn flags(phase: &Phase) -> String {
    let list = |numbers: &[&str]| {
        let quoted: Vec<String> = numbers.iter().map(|number| format!("\"{number}\"")).collect();
        format!("    allowlist: [{}]\n", quoted.join(", "))
    };
    let who = match phase.who {
        Who::Nobody => "    enabled: false\n".to_owned(),
        Who::Tester => format!("    enabled: true\n{}", list(&[TESTER])),
        Who::Canaries => format!("    enabled: true\n{}", list(&CANARIES)),
        Who::Percent(percent) => format!("    enabled: true\n    percentage: {percent}\n"),
    };
    format!(
        "# {name}\n\
         features:\n  \
           {FLAG}:\n    \
             type: boolean\n{who}  \
           WHATSAPP_CANONICAL_SHADOW_MODE: {{ type: boolean, enabled: {shadow} }}\n  \
           WHATSAPP_DUAL_RUN: {{ type: boolean, enabled: {dual_run} }}\n",
        name = phase.name,
        shadow = phase.shadow,
        dual_run = phase.dual_run,
    )
}

/// The configuration.
#[must_use]
pub fn config(folder: &Path, legacy: SocketAddr, new: SocketAddr) -> String {
    // JSON texts are YAML texts, whatever the folder is called.
    let file = |name: &str| serde_json::Value::from(folder.join(name).to_string_lossy()).to_string();
    let (tokens, flags, state) = (file("tokens.yaml"), file("features.yaml"), file("understudy.db"));
    format!(
        "environment: production
workers: 2
listeners: [ {{ address: \"127.0.0.1:0\" }} ]
admin: {{ address: \"127.0.0.1:0\", tokens_file: {tokens} }}
flags: {{ file: {flags} }}
state: {{ path: {state} }}
limits: {{ drain: 2s }}
logs: {{ decisions: 10% }}
served_by: true
backends:
  legacy: {{ url: \"http://{legacy}\" }}
  new: {{ url: \"http://{new}\", copies: dry_run }}
routes:
  - name: {ROUTE}
    match: {{ path: {PATH}, methods: [GET, POST] }}
    identity:
      - all:
          - {{ json: [\"/entry/*/changes/*/value/messages/*/from\", \"/entry/*/changes/*/value/messages/*/from_user_id\"], normalise: digits }}
          - {{ json: /entry/*/changes/*/value/statuses/*/recipient_id, normalise: digits }}
    flag: {FLAG}
    shadow_mode: WHATSAPP_CANONICAL_SHADOW_MODE
    dual_run: WHATSAPP_DUAL_RUN
    shadow: {{ flag: false, methods: [POST] }}
    compare:
      ignore: [/trace]
      headers: [content-type]
      severity: {{ \"/messages/*/reply/total\": critical }}
    budgets:
      - {{ name: errors, metric: error_rate, tolerate: {{ ratio: 1.1 }}, action: kill }}
      - {{ name: slow, metric: latency_p95, tolerate: {{ ratio: {TOLERATED_SLOWNESS} }}, action: kill }}
"
    )
}

/// The tokens file that lets one operator in.
#[must_use]
pub fn tokens(token: &str) -> String {
    let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("tokens: [ {{ name: demo, role: operator, sha256: {digest} }} ]\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::config;
    use crate::engine::ruleset::document::Document;
    use crate::engine::ruleset::problem::Problems;
    use crate::engine::ruleset::{self, Input};
    use crate::engine::vocab::{FlagKey, Revision};

    fn loaded() -> config::Loaded {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let folder = PathBuf::from("a \"folder\": x");
        let mut files = BTreeMap::from([
            (
                folder.join("understudy.yaml"),
                config(&folder, address(9001), address(9002)),
            ),
            (folder.join("tokens.yaml"), tokens("secret")),
        ]);
        let mut read = |path: &Path| {
            files
                .remove(path)
                .map(String::into_bytes)
                .ok_or(std::io::ErrorKind::NotFound.into())
        };
        config::load_by(&folder.join("understudy.yaml"), &mut read).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn configuration_and_every_flag_file_compile() {
        let config = loaded().config;
        for who in [Who::Nobody, Who::Tester, Who::Canaries, Who::Percent(25)] {
            let phase = Phase {
                name: "0 DEV",
                who,
                shadow: true,
                dual_run: false,
            };
            let mut problems = Problems::default();
            let document = Document::parse(&"features.yaml".into(), &flags(&phase), &mut problems);
            let input = Input {
                revision: Revision(1),
                environment: "production",
                document,
                runtime: Default::default(),
                variables: &BTreeMap::new(),
                routes: config.routes.clone(),
                copies: config.backends.copies(),
                now_ms: 0,
                previous: None,
                marks: &[],
                problems,
            };
            let (rules, warnings) = ruleset::compile(input).unwrap_or_else(|problems| panic!("{who:?}: {problems:?}"));
            // Legacy is not touched, so it takes no copies, and the compiler says so. The flag files say nothing odd.
            let of_flags = warnings.iter().find(|warning| &*warning.place.file == "features.yaml");
            assert!(of_flags.is_none(), "{who:?}: {of_flags:?}");
            assert!(FlagKey::parse(FLAG).is_ok_and(|key| rules.flag(&key).is_some()));
        }
    }

    #[test]
    fn more_percent_never_takes_anybody_back() {
        for at in 0..1_000 {
            let number = format!("3363998{at:04}");
            assert!(!Who::Percent(5).has(&number) || Who::Percent(25).has(&number));
            assert!(!Who::Percent(0).has(&number) && Who::Percent(100).has(&number));
        }
    }
}

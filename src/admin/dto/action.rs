//! Kills and re-arms: what is asked, and what came of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The body of a kill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Why. Required; only the role `emergency` may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of a re-arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RearmRequest {
    /// Why. Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Lifts the hold of this one subject and leaves the route as it is. A key in clear, or `h:` and 16 hex digits. For routes
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// The body of a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of a freeze, and of its end. Without flag and route it is about everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Why. Required; only the role `emergency` may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This flag, wherever it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The flags that this route asks for who is served by new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// The answer to a freeze, and to its end: it is on disk and in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// What.
    pub target: Target,
    /// Whether it is frozen now.
    pub frozen: bool,
    /// False if it was so already.
    pub changed: bool,
    /// What the caller should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The kinds of things that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// Every flag and every constant.
    All,
    /// One flag, wherever it is used.
    Flag,
    /// One route.
    Route,
    /// One subject on one route.
    Subject,
}

/// Something that can be killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// The flag's key, or the route's name; of [`TargetKind::All`] none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The hash of a [`TargetKind::Subject`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        match self.kind {
            TargetKind::All => f.write_str("everything"),
            TargetKind::Flag => write!(f, "flag {name}"),
            TargetKind::Route => write!(f, "route {name}"),
            TargetKind::Subject => {
                write!(
                    f,
                    "subject {} on route {name}",
                    self.subject.as_deref().unwrap_or_default()
                )
            }
        }
    }
}

/// The answer to a kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Always true: by the time of the answer, the next decision is legacy.
    pub in_force: bool,
    /// Whether it would survive a crash now. If not, storing it goes on for as long as it takes.
    pub stored: bool,
    /// Whether the state file or the kill journal has it: both are read at a start, so it survives a restart.
    #[serde(default)]
    pub journaled: bool,
    /// False if it was killed already; then the first reason stands.
    pub changed: bool,
    /// Which life of the kill switch this is; a re-arm begins the next.
    pub epoch: u64,
    /// What is killed.
    pub target: Target,
    /// What the caller should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The answer to a re-arm: it is lifted, and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rearmed {
    /// The life that began.
    pub epoch: u64,
    /// How many held subjects of a route this lifted as well.
    pub subjects: usize,
    /// What was lifted.
    pub target: Target,
    /// What keeps it on legacy all the same, and what the caller should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_subject_is_refused_rather_than_lifting_the_whole_route() {
        assert!(serde_json::from_str::<RearmRequest>(r#"{"reason":"repaired","subjct":"s1"}"#).is_err());
    }

    #[test]
    fn answer_to_a_kill_begins_with_what_matters() {
        let killed = Killed {
            in_force: true,
            stored: false,
            journaled: true,
            changed: true,
            epoch: 3,
            target: Target {
                kind: TargetKind::Route,
                name: Some("whatsapp".into()),
                subject: None,
            },
            warnings: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&killed).unwrap(),
            r#"{"in_force":true,"stored":false,"journaled":true,"changed":true,"epoch":3,"target":{"kind":"route","name":"whatsapp"},"warnings":[]}"#
        );
        assert_eq!(killed.target.to_string(), "route whatsapp");
    }
}

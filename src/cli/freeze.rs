//! `understudy freeze` and `understudy unfreeze`: nothing puts more subjects on new, until somebody lifts it.

use std::process::ExitCode;

use clap::Args;

use super::client::Remote;
use super::terminal::{json, plain, print, wrap};
use super::{Output, OutputArgs};
use crate::admin::dto::{FreezeRequest, Frozen};

/// The options of `understudy freeze` and `understudy unfreeze`.
#[derive(Clone, Debug, Args)]
pub(super) struct FreezeArgs {
    #[command(flatten)]
    what: What,
    /// Why; only a token with the role `emergency` may leave it out
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is meant.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The flags that this route asks for who is served by new
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// This flag, wherever it is used
    #[arg(long, value_name = "FLAG")]
    flag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl FreezeArgs {
    /// Freezes. Exit code 0: in force and on disk.
    pub fn freeze(&self) -> ExitCode {
        self.execute("/api/v1/freeze")
    }

    /// Lifts a freeze. Exit code 0: lifted, and on disk.
    pub fn unfreeze(&self) -> ExitCode {
        self.execute("/api/v1/unfreeze")
    }

    fn execute(&self, path: &str) -> ExitCode {
        // Without flag and route it is about everything, which clap lets nobody ask for but by `--all`.
        let ask = FreezeRequest {
            reason: self.reason.clone(),
            flag: self.what.flag.clone(),
            route: self.what.route.clone(),
        };
        let frozen: Frozen = match self.remote.post(path, &ask) {
            Ok(frozen) => frozen,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&frozen),
            Output::Table => text(&frozen),
        })
    }
}

fn text(frozen: &Frozen) -> String {
    let now = match (frozen.frozen, frozen.changed) {
        (true, true) => "frozen: nothing puts more subjects on new until it is lifted",
        (true, false) => "frozen already",
        (false, true) => "not frozen any more",
        (false, false) => "not frozen by itself, as before",
    };
    let mut text = format!("{} is {now}\n", plain(&frozen.target.to_string()));
    for warning in &frozen.warnings {
        text += &wrap(&format!("  warning: {}", plain(warning)), 4);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::{Target, TargetKind};

    #[test]
    fn answer_says_whether_it_is_frozen_now() {
        let said = |frozen, changed| {
            text(&Frozen {
                target: Target {
                    kind: TargetKind::Flag,
                    name: Some("checkout".into()),
                    subject: None,
                },
                frozen,
                changed,
                warnings: Vec::new(),
            })
        };
        assert_eq!(said(true, false), "flag checkout is frozen already\n");
        assert_eq!(said(false, true), "flag checkout is not frozen any more\n");
    }
}

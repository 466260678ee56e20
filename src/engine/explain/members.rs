//! The members of a flag in words, for a person who asks why.
//!
//! Pure.

use crate::engine::flags::Threshold;
use crate::engine::flags::model::{Flag, Member, Percent};
use crate::engine::flags::schedule::Slope;
use crate::engine::flags::subjects::SubjectSet;

/// The value of a member in words; of lists only how long they are.
pub(super) fn text(flag: &Flag, member: Member) -> String {
    let about = &flag.about;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let word = |value: Option<bool>| value.map(|value| value.to_string()).unwrap_or_default();
    let size = |list: &Option<SubjectSet>| format!("{} subjects", list.as_ref().map_or(0, SubjectSet::len));
    let ramp = match &flag.percent {
        Some(Percent::Gradual(ramp, _)) => Some(*ramp),
        Some(Percent::Fixed(_)) | None => None,
    };
    let date = |ms: Option<i64>| {
        ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map(|at| at.to_string())
            .unwrap_or_default()
    };
    match member {
        Member::Type => flag.flag_type.as_str().to_owned(),
        Member::Kind => about.kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        Member::Description => text(&about.description),
        Member::Owner => text(&about.owner),
        Member::Purpose => text(&about.purpose),
        Member::Rollback => text(&about.rollback),
        Member::ExpectedEnd => text(&about.expected_end),
        Member::Metadata => about
            .metadata
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect::<Vec<_>>()
            .join(", "),
        Member::Env => about.env.join(", "),
        Member::Enabled => word(flag.enabled),
        Member::Environments => about
            .environments
            .as_ref()
            .map(|list| list.join(", "))
            .unwrap_or_default(),
        Member::StartDate => date(ramp.map(|ramp| ramp.start_ms).or(flag.period.start_ms)),
        Member::EndDate => date(match ramp.map(|ramp| ramp.slope) {
            Some(Slope::Until(end)) => Some(end),
            Some(Slope::PerDay(_)) | None => flag.period.end_ms,
        }),
        Member::GradualIncrement => match ramp.map(|ramp| ramp.slope) {
            Some(Slope::PerDay(units)) => format!("{} points per day", decimal(units)),
            Some(Slope::Until(_)) | None => "unused".to_owned(),
        },
        Member::Prerequisites => flag
            .prerequisites
            .iter()
            .map(|first| first.flag.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        Member::BetaUsers => size(&flag.beta_users),
        Member::Rules => flag
            .rules
            .iter()
            .map(|rule| &*rule.label)
            .collect::<Vec<_>>()
            .join(", "),
        Member::Variants => flag
            .variants
            .iter()
            .flat_map(|all| all.iter())
            .map(|variant| format!("{} {} %", variant.name, Threshold::from_buckets(variant.weight)))
            .collect::<Vec<_>>()
            .join(", "),
        Member::Denylist => size(&flag.denylist),
        Member::Allowlist => size(&flag.allowlist),
        Member::Percentage => match &flag.percent {
            Some(Percent::Fixed(threshold)) => threshold.to_string(),
            Some(Percent::Gradual(..)) | None => String::new(),
        },
        Member::Cohort => flag.cohort.as_ref().map(ToString::to_string).unwrap_or_default(),
        Member::Default => match &flag.variants {
            Some(variants) => variants
                .get(variants.off())
                .map(|off| off.name.to_string())
                .unwrap_or_default(),
            None => flag.default.to_string(),
        },
        Member::ShadowMode => word(flag.shadow_mode),
    }
}

/// Units of 0.0001 as a decimal number.
fn decimal(units: u64) -> String {
    let text = format!("{}.{:04}", units / 10_000, units % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

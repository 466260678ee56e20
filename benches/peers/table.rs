//! The figures, as a table for people and as JSON for documents.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde_json::json;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub figure: String,
    pub ours: f64,
    pub unit: &'static str,
    /// Whom it is measured against, and what that took; without one, the figure itself is what is judged.
    pub peer: Option<(String, f64)>,
    /// The median of the ratios of single rounds: both sides of a round ran within the same seconds.
    pub ratio: Option<f64>,
    pub required: Option<f64>,
    pub goal: Option<f64>,
    /// What else has to hold for the figure to count, if it does not.
    pub void: Option<String>,
}

impl Row {
    fn judged(&self) -> f64 {
        self.ratio.unwrap_or(self.ours)
    }

    fn verdict(&self) -> String {
        if let Some(why) = &self.void {
            return format!("does not count: {why}");
        }
        match (self.required, self.goal) {
            (_, Some(goal)) if self.judged() <= goal => "goal".into(),
            (Some(required), _) if self.judged() <= required => "required".into(),
            (Some(_), _) => "NO".into(),
            (None, _) => String::new(),
        }
    }
}

/// The table as Markdown.
pub fn print(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["figure", "ours", "peer", "ratio", "required", "goal", "met"]);
    let number = |n: Option<f64>| n.map_or_else(String::new, |n| format!("{n:.2}"));
    for row in rows {
        let peer = row.peer.as_ref();
        table.add_row([
            row.figure.clone(),
            format!("{:.2} {}", row.ours, row.unit),
            peer.map_or_else(String::new, |(name, took)| format!("{name} {took:.2}")),
            number(row.ratio),
            number(row.required),
            number(row.goal),
            row.verdict(),
        ]);
    }
    table.to_string()
}

/// The same for machines.
pub fn json(rows: &[Row], versions: &[(&str, String)], load: f64) -> String {
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "figure": row.figure, "ours": row.ours, "unit": row.unit,
                "peer": row.peer.as_ref().map(|(name, _)| name), "peer_took": row.peer.as_ref().map(|(_, took)| took),
                "ratio": row.ratio, "required": row.required, "goal": row.goal, "met": row.verdict(),
            })
        })
        .collect();
    let versions: serde_json::Map<_, _> = versions
        .iter()
        .map(|(name, v)| ((*name).to_owned(), json!(v)))
        .collect();
    format!(
        "{:#}\n",
        json!({ "versions": versions, "load_average": load, "rows": lines })
    )
}

/// The median; the mean of the middle two where there is no middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// A percentile of latencies, in microseconds.
pub fn percentile(nanos: &mut [u64], percent: usize) -> f64 {
    nanos.sort_unstable();
    let at = (nanos.len() * percent / 100).min(nanos.len().saturating_sub(1));
    #[allow(clippy::cast_precision_loss, reason = "latencies are far below 2^53 ns")]
    nanos.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1_000.0)
}

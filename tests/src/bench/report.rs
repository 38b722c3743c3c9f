//! What is shown at the end: a line for people, or JSON for programs.

use std::io::Write;

use serde_json::json;

/// Ratios that differ by more than this, from the lowest to the highest, tell little.
const NOISE_MAX: f64 = 0.10;

/// Shows figures as they come.
pub(super) struct Report {
    is_json: bool,
}

/// One side of a measurement, in every round.
pub(super) struct Series {
    /// What was measured, for example `quinn`.
    pub(super) name: &'static str,
    /// A value a round.
    pub(super) values: Vec<f64>,
}

/// A figure.
pub(super) struct Figure<'a> {
    /// The bench.
    pub(super) bench: &'a str,
    /// What of it.
    pub(super) case: &'a str,
    /// The unit of the values.
    pub(super) unit: &'a str,
    /// Ours.
    pub(super) ours: Series,
    /// What it is compared with, round by round.
    pub(super) baseline: Option<Series>,
}

impl Report {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// Shows a figure.
    pub(super) fn show(&mut self, figure: &Figure<'_>) {
        let value = median(&figure.ours.values);
        let spread = spread(&figure.ours.values);
        let Some(baseline) = &figure.baseline else {
            return self.show_alone(figure, value, spread);
        };
        let pairs = figure.ours.values.iter().zip(&baseline.values);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        let ratio = median(&ratios);
        let [low, high] = self::spread(&ratios);
        let is_noisy = high - low > NOISE_MAX * ratio;
        if self.is_json {
            return say(&json!({
                "bench": figure.bench, "case": figure.case, "value": round(value), "unit": figure.unit,
                "baseline": { "name": baseline.name, "value": round(median(&baseline.values)) },
                "ratio": round(ratio), "spread": spread.map(round), "ratio_spread": [round(low), round(high)],
                "noisy": is_noisy,
            }).to_string());
        }
        say(&format!(
            "{:8} {:14} {value:9.1} {:6}  {} {:9.1}  ratio {ratio:5.2} ({low:.2} to {high:.2}){}",
            figure.bench,
            figure.case,
            figure.unit,
            baseline.name,
            median(&baseline.values),
            if is_noisy { "  too noisy to tell" } else { "" },
        ));
    }

    /// Says why a case was not measured.
    pub(super) fn skipped(&mut self, bench: &str, case: &str, why: &str) {
        if self.is_json {
            say(&json!({ "bench": bench, "case": case, "skipped": why }).to_string());
        } else {
            say(&format!("{bench:8} {case:14} skipped: {why}"));
        }
    }

    /// Says what went wrong.
    pub(super) fn failed(&mut self, failure: &dyn std::error::Error) {
        if self.is_json {
            say(&json!({ "failed": failure.to_string() }).to_string());
        } else {
            say(&format!("failed: {failure}"));
        }
    }

    fn show_alone(&self, figure: &Figure<'_>, value: f64, [low, high]: [f64; 2]) {
        if self.is_json {
            return say(&json!({
                "bench": figure.bench, "case": figure.case, "value": round(value), "unit": figure.unit,
                "spread": [round(low), round(high)],
            }).to_string());
        }
        say(&format!(
            "{:8} {:14} {value:9.2} {:6}  ({low:.2} to {high:.2})",
            figure.bench, figure.case, figure.unit
        ));
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn spread(values: &[f64]) -> [f64; 2] {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [low, high]
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn say(line: &str) {
    // A reader that has gone away misses the rest.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 3.0]);
    }
}

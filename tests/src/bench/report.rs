//! What is shown at the end: a line for people, or JSON for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::rounds::{Rounds, Summary};

/// Rounds that are further apart than this share of their median tell little.
const SPREAD_MAX: f64 = 0.10;

/// Shows figures as they come.
pub(super) struct Report {
    is_json: bool,
}

/// A figure: one number of each side in every slice.
pub(super) struct Figure<'a, const SIDES: usize> {
    /// The bench, for example `file`.
    pub(super) bench: &'a str,
    /// What of it, for example `loopback`.
    pub(super) case: &'a str,
    /// The unit of the values.
    pub(super) unit: &'a str,
    /// The names of the sides: ours, what it is compared with, and what only stands beside it.
    pub(super) sides: [&'a str; SIDES],
    /// The values.
    pub(super) rounds: &'a Rounds<[f64; SIDES]>,
}

impl Report {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// Shows a figure.
    pub(super) fn show<const SIDES: usize>(&mut self, figure: &Figure<'_, SIDES>) {
        if self.is_json {
            say(&figure.json().to_string());
        } else {
            say(&figure.line());
        }
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
}

impl<const SIDES: usize> Figure<'_, SIDES> {
    fn side(&self, side: usize) -> Summary {
        self.rounds.summary(|slice| slice[side])
    }

    /// Ours as a multiple of the baseline, if there is one.
    fn ratio(&self) -> Option<Summary> {
        (SIDES > 1).then(|| self.rounds.summary(|slice| slice[0] / slice[1]))
    }

    fn line(&self) -> String {
        let ours = self.side(0);
        let mut line = format!(
            "{:8} {:14} {:9.3} {:6}",
            self.bench, self.case, ours.median, self.unit
        );
        for side in 1..SIDES {
            line += &format!("  {} {:9.3}", self.sides[side], self.side(side).median);
        }
        let (shown, name) = match self.ratio() {
            Some(ratio) => (ratio, "  ratio"),
            None => (ours, ""),
        };
        if SIDES > 1 {
            line += &format!("{name} {:5.2}", shown.median);
        }
        line += &format!(" ({:.2} to {:.2})", shown.low, shown.high);
        if is_noisy(&shown) {
            line += "  too noisy to tell";
        }
        line
    }

    fn json(&self) -> Value {
        let ours = self.side(0);
        let mut value = json!({
            "bench": self.bench, "case": self.case, "unit": self.unit,
            "value": round(ours.median), "spread": [round(ours.low), round(ours.high)],
            "noisy": is_noisy(&self.ratio().unwrap_or(ours)),
        });
        if let Some(ratio) = self.ratio() {
            value["baseline"] = self.named(1);
            value["ratio"] = round(ratio.median);
            value["ratio_spread"] = json!([round(ratio.low), round(ratio.high)]);
        }
        if SIDES > 2 {
            value["beside"] = (2..SIDES).map(|side| self.named(side)).collect();
        }
        value
    }

    fn named(&self, side: usize) -> Value {
        json!({ "name": self.sides[side], "value": round(self.side(side).median) })
    }
}

fn is_noisy(summary: &Summary) -> bool {
    // What cannot be compared, such as a ratio to nothing, tells nothing either.
    summary.spread().is_nan() || summary.spread() > SPREAD_MAX
}

fn round(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

fn say(line: &str) {
    // A reader that has gone away misses the rest.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of one slice each, after a round of zeros that warms up.
    fn rounds<const SIDES: usize>(values: &[[f64; SIDES]]) -> Rounds<[f64; SIDES]> {
        let all = [&[[0.0; SIDES]], values].concat();
        let mut calls = 0;
        Rounds::measure(values.len() as u32, 1, |side| {
            calls += 1;
            Ok(all[(calls - 1) / SIDES][side])
        })
        .expect("nothing fails")
    }

    fn figure<'a, const SIDES: usize>(
        sides: [&'a str; SIDES],
        rounds: &'a Rounds<[f64; SIDES]>,
    ) -> Figure<'a, SIDES> {
        Figure {
            bench: "message",
            case: "64B",
            unit: "us",
            sides,
            rounds,
        }
    }

    #[test]
    fn a_figure_with_a_baseline_has_its_ratio_and_what_stands_beside() {
        let rounds = rounds(&[[9.0, 10.0, 5.0], [18.0, 20.0, 6.0], [9.0, 10.0, 7.0]]);
        let figure = figure(["ours", "quinn", "udp"], &rounds);
        let expected = json!({
            "bench": "message", "case": "64B", "unit": "us", "value": 9.0, "spread": [9.0, 18.0],
            "noisy": false, "baseline": { "name": "quinn", "value": 10.0 }, "ratio": 0.9,
            "ratio_spread": [0.9, 0.9], "beside": [{ "name": "udp", "value": 6.0 }],
        });
        assert_eq!(figure.json(), expected);
        let line = figure.line();
        assert!(line.contains("quinn    10.000  udp     6.000"), "{line}");
        assert!(line.ends_with("ratio  0.90 (0.90 to 0.90)"), "{line}");
    }

    #[test]
    fn rounds_that_are_far_apart_are_called_noisy() {
        let rounds = rounds(&[[10.0], [11.5], [11.0]]);
        let figure = figure(["ours"], &rounds);
        assert_eq!(figure.json()["noisy"], true);
        assert!(figure.json()["ratio"].is_null());
        assert!(
            figure
                .line()
                .ends_with("us     (10.00 to 11.50)  too noisy to tell"),
            "{}",
            figure.line()
        );
    }

    #[test]
    fn a_ratio_to_nothing_tells_nothing() {
        let rounds = rounds(&[[0.0, 0.0], [0.0, 0.0]]);
        assert_eq!(figure(["ours", "quinn"], &rounds).json()["noisy"], true);
    }
}

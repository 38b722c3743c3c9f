//! Progress bars of transfers, below the lines on stderr. Without a terminal there are none.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use common::id::TransferId;
use common::text::{inline, rate, seconds, shortened};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Look, Screen};

/// Columns of a file name in front of a bar, where the terminal is wide enough.
const LABEL_COLUMNS_MAX: usize = 24;
/// Columns of percent, rate and time left, with the blanks around them.
const FIGURES_COLUMNS: usize = 37;
/// Columns below which the name takes the place of the bar.
const BAR_FROM_COLUMNS: usize = 60;

/// The bars of all transfers that move.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    look: Look,
    bars: BTreeMap<TransferId, ProgressBar>,
}

impl Bars {
    /// Without a terminal, or for programs, none will be seen.
    pub(crate) fn new(screen: &Screen) -> Self {
        let is_visible = !screen.is_json() && io::stderr().is_terminal();
        let target = if is_visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            look: screen.error_look.clone(),
            bars: BTreeMap::new(),
        }
    }

    /// Moves the bar of a transfer, which appears at the first call.
    pub(crate) fn advance(&mut self, transfer: TransferId, name: &str, done: u64, total: u64) {
        let bar = self.bars.entry(transfer).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            let columns = self.look.columns();
            bar.set_style(style(columns));
            bar.set_prefix(label(name, columns));
            bar.set_message(inline(name).into_owned());
            // What an earlier attempt brought was not moved now.
            bar.set_position(done);
            bar.reset_eta();
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Removes the bar of a transfer.
    pub(crate) fn end(&mut self, transfer: TransferId) {
        if let Some(bar) = self.bars.remove(&transfer) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Writes something while the bars are out of the way.
    pub(crate) fn around<R>(&self, write: impl FnOnce() -> R) -> R {
        self.all.suspend(write)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for (_, bar) in std::mem::take(&mut self.bars) {
            bar.finish_and_clear();
        }
    }
}

/// Name, bar and figures; the bar takes what the others leave of the terminal. On a narrow one figures, and
/// what there is room for of the name.
fn style(columns: Option<usize>) -> ProgressStyle {
    let template = if columns.is_some_and(|columns| columns < BAR_FROM_COLUMNS) {
        "{percent:>3} %  {speed}  {left}  {wide_msg}"
    } else {
        "{prefix} {wide_bar} {percent:>3} %  {speed:>10}  {left:<16}"
    };
    ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .with_key(
            "speed",
            |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A terminal's line is a buffer that takes everything.
                let _ = out.write_str(&speed(state.per_sec()));
            },
        )
        .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Without a rate there is no telling.
            if state.per_sec() >= 1.0 {
                let _ = write!(out, "{} left", seconds(state.eta().as_secs()));
            }
        })
        .progress_chars("━╸─")
}

fn speed(bytes_per_second: f64) -> String {
    rate(bytes_per_second as u64, Duration::from_secs(1))
}

/// A file name in front of a bar: harmless, and at most half as wide as what the figures leave of a
/// terminal of `columns`, so that there is a bar.
fn label(name: &str, columns: Option<usize>) -> String {
    let room = columns.map_or(LABEL_COLUMNS_MAX, |columns| {
        columns.saturating_sub(FIGURES_COLUMNS) / 2
    });
    shortened(&inline(name), room.min(LABEL_COLUMNS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::text::columns;

    #[test]
    fn t05_labels_are_harmless_and_short() {
        assert_eq!(label("a\u{1b}[2Jb", None), "a␛[2Jb");
        let long = label(&format!("{}.tar.gz", "x".repeat(80)), Some(100));
        assert_eq!(columns(&long), LABEL_COLUMNS_MAX);
        assert!(long.ends_with("xx.tar.gz"));
        assert_eq!(label("{bar}", None), "{bar}");
        let wide = label(&format!("{}.tar.gz", "漢字".repeat(40)), Some(60));
        assert!((10..=11).contains(&columns(&wide)), "{wide}");
        assert_eq!(label("name", Some(10)), "");
    }

    #[test]
    fn figures_have_the_forms_of_all_others() {
        assert_eq!(speed(5_000_000.4), "5.0 MB/s");
        assert_eq!(speed(f64::NAN), "0 B/s");
    }

    #[test]
    fn the_templates_are_well_formed() {
        for columns in [None, Some(1), Some(40), Some(80)] {
            let _style = style(columns);
        }
    }
}

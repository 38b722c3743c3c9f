//! Progress bars of transfers, below the lines on stderr. Without a terminal there are none.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use common::id::TransferId;
use common::text::inline;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Screen;

/// Longest file name in front of a bar, in characters.
const LABEL_LEN_MAX: usize = 24;

/// The bars of all transfers that move.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    bars: BTreeMap<TransferId, ProgressBar>,
}

impl Bars {
    /// None yet.
    pub(crate) fn new(screen: &Screen) -> Self {
        let is_visible = !screen.is_json() && io::stderr().is_terminal();
        let target = if is_visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            bars: BTreeMap::new(),
        }
    }

    /// Moves the bar of a transfer, which appears at the first call.
    pub(crate) fn advance(&mut self, transfer: TransferId, name: &str, done: u64, total: u64) {
        let bar = self.bars.entry(transfer).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            bar.set_style(style());
            bar.set_prefix(label(name));
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

fn style() -> ProgressStyle {
    // Fits 80 columns with the longest name.
    let template = "{prefix} {bar:20} {percent:>3} %  {decimal_bytes_per_sec:>11}  {eta:>4} left";
    ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .progress_chars("━╸─")
}

/// A file name in front of a bar: harmless, and not longer than its column.
fn label(name: &str) -> String {
    let name = inline(name);
    let length = name.chars().count();
    if length <= LABEL_LEN_MAX {
        return name.into_owned();
    }
    let kept = LABEL_LEN_MAX - 1;
    let (head, tail) = (kept - kept / 2, kept / 2);
    let head: String = name.chars().take(head).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t05_labels_are_harmless_and_short() {
        assert_eq!(label("a\u{1b}[2Jb"), "a␛[2Jb");
        let long = label(&format!("{}.tar.gz", "x".repeat(80)));
        assert_eq!(long.chars().count(), LABEL_LEN_MAX);
        assert!(long.ends_with("xx.tar.gz"));
        assert_eq!(label("{bar}"), "{bar}");
    }

    #[test]
    fn the_template_is_well_formed() {
        let _style = style();
    }
}

//! Progress bars of transfers, below the lines on stderr. Without a terminal there are none. While something else
//! draws the last rows of the terminal, it draws the bars, too.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Instant;

use common::id::{AccountName, TransferId};
use common::text::{columns, inline, seconds, shortened_name, size};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Look, Screen};
use crate::conversation::speed::{Pace, Speed};
use crate::node::command::Moved;
use margin::{MARGIN, Margined};

// Stderr, but for the ends of its rows.
mod margin;

/// What a stall is called where there is room. Either the other side is heard again, or the link ends after some
/// seconds without an answer, and the file with it.
pub(crate) const STALLED: &str = "stalled: goes on or fails";

/// Columns of a file name in front of a bar, where the terminal is wide enough.
const LABEL_COLUMNS_MAX: usize = 24;
/// Columns of percent, rate and time left, with the blanks around them.
const FIGURES_COLUMNS: usize = 37;
/// Columns of the percent with the blanks behind it, on a narrow terminal.
const PERCENT_COLUMNS: usize = 7;
/// Columns below which the name takes the place of the bar.
const BAR_FROM_COLUMNS: usize = 60;

/// More often than this no bar is drawn.
const DRAWS_PER_SECOND: u8 = 20;

/// The bars of all transfers that move.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    /// Somebody will see them.
    is_visible: bool,
    /// They are drawn elsewhere.
    is_lent: bool,
    look: Look,
    bars: BTreeMap<TransferId, Bar>,
}

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    /// The file's name, harmless.
    name: String,
    with: AccountName,
    speed: Speed,
    /// Bytes that have not come so far.
    missing: u64,
}

impl Bars {
    /// Without a terminal, or for programs, none will be seen.
    pub(crate) fn new(screen: &Screen) -> Self {
        let is_visible = !screen.is_json() && io::stderr().is_terminal();
        Self {
            all: MultiProgress::with_draw_target(target(is_visible)),
            is_visible,
            is_lent: false,
            look: screen.error_look.clone(),
            bars: BTreeMap::new(),
        }
    }

    /// Moves the bar of a transfer, which appears at the first call.
    pub(crate) fn advance(
        &mut self,
        transfer: TransferId,
        (name, with): (&str, &AccountName),
        moved: Moved,
        now: Instant,
    ) {
        let Moved {
            done,
            total,
            is_behind,
        } = moved;
        let columns = self.look.columns();
        let one = self.bars.entry(transfer).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            bar.set_style(style(columns));
            bar.set_prefix(label(name, columns));
            Bar {
                bar,
                name: inline(name).into_owned(),
                with: with.clone(),
                speed: Speed::default(),
                missing: 0,
            }
        });
        one.speed.add(done, now);
        one.speed.set_behind(is_behind);
        one.missing = total.saturating_sub(done);
        one.bar.set_length(total);
        one.bar.set_position(done);
        self.tell(columns);
    }

    /// When a bar that moves is to be said to be stalled, should nothing come by then.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let all = self.bars.values();
        all.filter_map(|bar| bar.speed.stalls_at()).min()
    }

    /// Notes which bars do not move any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for bar in self.bars.values_mut() {
            bar.speed.handle_timeout(now);
        }
        self.tell(self.look.columns());
    }

    /// Removes the bar of a transfer.
    pub(crate) fn end(&mut self, transfer: TransferId) {
        if let Some(Bar { bar, .. }) = self.bars.remove(&transfer) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Says how fast each is.
    fn tell(&self, columns: Option<usize>) {
        for one in self.bars.values() {
            let same = self.bars.values().filter(|other| other.with == one.with);
            let pace = one.speed.pace(same.map(|other| &other.speed));
            let [rate, left] = figures(pace, one.missing);
            let message = match columns {
                Some(columns) if is_narrow(Some(columns)) => {
                    narrow(&rate, &left, &one.name, columns)
                }
                _ if pace == Pace::Stalled => format!("   {STALLED:<25}"),
                _ => format!("{rate:>10}  {left:<16}"),
            };
            if one.bar.message() != message {
                one.bar.set_message(message);
            }
        }
    }

    /// Has the bars drawn elsewhere from now on, as [`Bars::rows`], or here again.
    pub(crate) fn lend(&mut self, is_lent: bool) {
        if self.is_lent == is_lent {
            return;
        }
        self.is_lent = is_lent;
        // What cannot be drawn need not be cleared.
        let _ = self.all.clear();
        self.all
            .set_draw_target(target(self.is_visible && !is_lent));
    }

    /// The bars as they are drawn elsewhere, a row each. Of more than `rows_max` the last row counts those that
    /// are not shown.
    pub(crate) fn rows(&self, rows_max: usize) -> Vec<String> {
        let columns = self.look.columns();
        let count = self.bars.len();
        let shown = if count > rows_max {
            rows_max.saturating_sub(1)
        } else {
            count
        };
        let bars = self.bars.values().take(shown);
        let mut rows: Vec<_> = bars.map(|bar| bar.row(columns)).collect();
        if shown < count {
            rows.push(format!("… {} more", count - shown));
        }
        rows
    }

    /// Writes something while the bars are out of the way.
    pub(crate) fn around<R>(&self, write: impl FnOnce() -> R) -> R {
        self.all.suspend(write)
    }
}

impl Bar {
    /// The same as [`style`] has it.
    fn row(&self, screen: Option<usize>) -> String {
        let total = self.bar.length().unwrap_or_default();
        let done = self.bar.position().min(total);
        let percent = part(100, done, total);
        let figures = format!("{percent:>3} %  {}", self.bar.message());
        let row = match screen {
            Some(screen) if !is_narrow(Some(screen)) => {
                let label = self.bar.prefix();
                let taken = columns(&label) + FIGURES_COLUMNS + usize::from(MARGIN);
                let bar = drawn(done, total, screen.saturating_sub(taken));
                format!("{label} {bar} {figures}")
            }
            _ => figures,
        };
        row.trim_end().to_owned()
    }
}

/// A bar of so many columns.
fn drawn(done: u64, total: u64, columns: usize) -> String {
    let full = part(columns, done, total);
    let head = usize::from(done > 0 && full < columns);
    let rest = columns - full - head;
    let pieces = [("━", full), ("╸", head), ("─", rest)];
    pieces.map(|(piece, count)| piece.repeat(count)).concat()
}

/// What of `whole` is to that as `done` to `total`; of nothing all is done.
fn part(whole: usize, done: u64, total: u64) -> usize {
    let share = u128::from(done) * whole as u128;
    let part = share.checked_div(total.into());
    part.map_or(whole, |part| usize::try_from(part).unwrap_or(whole))
}

/// Stderr, or nothing.
fn target(is_drawn: bool) -> ProgressDrawTarget {
    if is_drawn {
        ProgressDrawTarget::term_like_with_hz(Box::new(Margined::default()), DRAWS_PER_SECOND)
    } else {
        ProgressDrawTarget::hidden()
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        while let Some(transfer) = self.bars.keys().next().copied() {
            self.end(transfer);
        }
    }
}

/// Name, bar and figures; the bar takes what the others leave of the terminal. On a narrow one figures, and
/// what there is room for of the name.
fn style(columns: Option<usize>) -> ProgressStyle {
    let template = if is_narrow(columns) {
        "{percent:>3} %  {wide_msg}"
    } else {
        "{prefix} {wide_bar} {percent:>3} %  {msg}"
    };
    ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .progress_chars("━╸─")
}

fn is_narrow(columns: Option<usize>) -> bool {
    columns.is_some_and(|columns| columns < BAR_FROM_COLUMNS)
}

/// What stands behind the percent on a `screen` of few columns: the figures that leave room for half of the
/// name, as far as one in front of a bar would be shown, and the name in what is left.
fn narrow(rate: &str, left: &str, name: &str, screen: usize) -> String {
    let room = screen.saturating_sub(usize::from(MARGIN) + PERCENT_COLUMNS);
    let whole = columns(name).min(LABEL_COLUMNS_MAX);
    // The other half is an ellipsis.
    let name_min = whole.min(whole.div_ceil(2) + 1);
    let one = if left.is_empty() { rate } else { left };
    let forms = [vec![rate, left], vec![one], vec![]].map(|figures| {
        let figures = figures.into_iter().filter(|figure| !figure.is_empty());
        figures.map(|figure| format!("{figure}  ")).collect()
    });
    let fits = |figures: &&String| columns(figures) + name_min <= room;
    let figures = forms.iter().find(fits).map_or("", String::as_str);
    let name = shortened_name(name, room.saturating_sub(columns(figures)));
    format!("{figures}{name}")
}

/// The rate, or why there is none, and the time left.
fn figures(pace: Pace, missing: u64) -> [String; 2] {
    let rate = match pace {
        Pace::Unmeasured => String::new(),
        Pace::PerSecond(rate) => format!("{}/s", size(rate)),
        Pace::Stalled => "stalled".to_owned(),
        Pace::Behind => "waits for its turn".to_owned(),
    };
    let left = pace.seconds_left(missing);
    let left = left.map_or(String::new(), |left| format!("{} left", seconds(left)));
    [rate, left]
}

/// A file name in front of a bar: harmless, and at most half as wide as what the figures leave of a
/// terminal of `columns`, so that there is a bar.
fn label(name: &str, columns: Option<usize>) -> String {
    let room = columns.map_or(LABEL_COLUMNS_MAX, |columns| {
        columns.saturating_sub(FIGURES_COLUMNS) / 2
    });
    shortened_name(&inline(name), room.min(LABEL_COLUMNS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn bars_that_are_drawn_elsewhere_fill_their_columns() {
        for (done, total, columns, bar) in [
            (0, 10, 4, "────"),
            (1, 10, 4, "╸───"),
            (5, 10, 4, "━━╸─"),
            (10, 10, 4, "━━━━"),
            (0, 0, 2, "━━"),
            (u64::MAX / 2, u64::MAX, 3, "━╸─"),
            (5, 10, 0, ""),
        ] {
            assert_eq!(drawn(done, total, columns), bar);
        }
    }

    #[test]
    fn figures_have_the_forms_of_all_others() {
        for (pace, shown) in [
            (Pace::PerSecond(5_000_000), ["5.0 MB/s", "2 s left"]),
            (Pace::PerSecond(1), ["1 B/s", ""]),
            (Pace::Stalled, ["stalled", ""]),
            (Pace::Behind, ["waits for its turn", ""]),
            (Pace::Unmeasured, ["", ""]),
        ] {
            assert_eq!(figures(pace, 10_000_000), shown);
        }
    }

    #[test]
    fn on_a_narrow_terminal_figures_give_way_to_the_name() {
        let long = format!("{}.tar.gz", "x".repeat(80));
        for (screen, rate, left, name, shown) in [
            (
                40,
                "41.6 MB/s",
                "1 min 35 s left",
                "big",
                "1 min 35 s left  big",
            ),
            (
                40,
                "41.6 MB/s",
                "9 s left",
                "film.mp4",
                "41.6 MB/s  9 s left  film.mp4",
            ),
            (
                40,
                "41.6 MB/s",
                "12 min left",
                "film.mp4",
                "41.6 MB/s  12 min left  f….mp4",
            ),
            (
                40,
                "41.6 MB/s",
                "1 min 35 s left",
                &long,
                "1 min 35 s left  xxxxxx…tar.gz",
            ),
            (
                40,
                "waits for its turn",
                "",
                "film.mp4",
                "waits for its turn  film.mp4",
            ),
            (40, "", "", "film.mp4", "film.mp4"),
            (26, "41.6 MB/s", "1 min 35 s left", "film.mp4", "film.mp4"),
            (26, "stalled", "", "film.mp4", "stalled  fi….mp4"),
            (14, "stalled", "", "film.mp4", "fi…4"),
            (1, "stalled", "", "film.mp4", ""),
        ] {
            let message = narrow(rate, left, name, screen);
            assert_eq!(message, shown);
            assert!(columns(&message) <= screen.saturating_sub(10));
        }
    }

    #[test]
    fn the_templates_are_well_formed() {
        for columns in [None, Some(1), Some(40), Some(80)] {
            let _style = style(columns);
        }
    }
}

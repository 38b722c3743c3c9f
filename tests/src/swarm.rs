//! Many seeds of the simulated world. What it finds is printed with the seed that shows it again.

use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::program::now;
use crate::sim::net::Mishaps;
use crate::sim::{self, Coverage, Outcome};

/// Runs simulated worlds, each from a seed, and says which of them fail and why.
#[derive(Debug, Parser)]
#[command(
    name = "swarm",
    after_help = "\
Examples:
  cargo run --release --bin swarm -- --seeds 1000
  cargo run --release --bin swarm -- --first 5000 --seeds 1000    seeds 5000 to 5999
  cargo run --release --bin swarm -- --seed 42                    one seed, with its decisions
  cargo run --release --bin swarm -- --seconds 180                a fixed time, as CI does"
)]
struct Arguments {
    /// The first seed; with --seconds as well
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// How many seeds, from the first on
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Only this seed; its decisions go to stderr
    #[arg(long, conflicts_with_all = ["first", "seeds", "seconds"])]
    seed: Option<u64>,
    /// Start no further seed after this time
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Steps of each
    #[arg(long, default_value_t = 300)]
    steps: u32,
    /// Worlds at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

impl Arguments {
    /// The seeds to try; with a fixed time there is no last one.
    fn range(&self) -> Range<u64> {
        let count = self.seconds.map_or(self.seeds, |_| u64::MAX);
        self.first..self.first.saturating_add(count)
    }
}

/// Error-level lines of the engines' log: a broken invariant, which fails a run.
struct Watchdog;

static ERRORS: AtomicU64 = AtomicU64::new(0);
static IS_LOUD: AtomicBool = AtomicBool::new(false);

impl Log for Watchdog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == Level::Error || IS_LOUD.load(Ordering::Relaxed)
    }

    fn log(&self, record: &Record<'_>) {
        let is_ours = ["tests", "peer", "rendezvous", "common"]
            .iter()
            .any(|name| record.target().starts_with(name));
        if !is_ours || !self.enabled(record.metadata()) {
            return;
        }
        if record.level() == Level::Error {
            ERRORS.fetch_add(1, Ordering::Relaxed);
        }
        // Whoever started this reads it.
        let _ = writeln!(
            io::stderr().lock(),
            "{:5} {}: {}",
            record.level(),
            record.target(),
            record.args()
        );
    }

    fn flush(&self) {}
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.seed.is_some() {
        IS_LOUD.store(true, Ordering::Relaxed);
        LevelFilter::Debug
    } else {
        LevelFilter::Error
    };
    if log::set_logger(&Watchdog).is_ok() {
        log::set_max_level(level);
    }
    match arguments.seed {
        Some(seed) => one(seed, arguments.steps),
        None => many(&arguments),
    }
}

fn one(seed: u64, steps: u32) -> ExitCode {
    say(&format!("SEED {seed}"));
    let outcome = sim::run(seed, steps);
    let errors = ERRORS.load(Ordering::Relaxed);
    say(&format!("trace {}", outcome.coverage.trace));
    show(&outcome.coverage, 1);
    match (outcome.violation, errors) {
        (None, 0) => ExitCode::SUCCESS,
        (None, _) => {
            say(&format!(
                "SEED {seed} FAILED: {errors} lines of the log at level error"
            ));
            ExitCode::FAILURE
        }
        (Some(violation), _) => {
            say(&format!("SEED {seed} FAILED: {violation}"));
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = now();
    let until = arguments
        .seconds
        .map(|seconds| began + Duration::from_secs(seconds));
    let seeds = arguments.range();
    let bar = progress(arguments.seconds.unwrap_or(arguments.seeds));
    let next = AtomicU64::new(seeds.start);
    let (sender, outcomes) = mpsc::channel::<(u64, Outcome)>();
    let mut all = Coverage::default();
    let (mut count, mut failed) = (0, Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            let (sender, next, seeds) = (sender.clone(), &next, &seeds);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = until.is_some_and(|until| now() >= until);
                    if !seeds.contains(&seed) || is_late {
                        return;
                    }
                    let outcome = sim::run(seed, arguments.steps);
                    if sender.send((seed, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, outcome) in outcomes {
            count += 1;
            add(&mut all, &outcome.coverage);
            if let Some(violation) = outcome.violation {
                bar.suspend(|| say(&format!("SEED {seed} FAILED: {violation}")));
                failed.push(seed);
            }
            bar.set_message(format!("{count} seeds, {} failed", failed.len()));
            bar.set_position(match arguments.seconds {
                Some(_) => now().saturating_duration_since(began).as_secs(),
                None => count,
            });
        }
    });
    bar.finish_and_clear();
    let errors = ERRORS.load(Ordering::Relaxed);
    say(&format!(
        "{count} seeds of {} steps in {:.1} s: {} failed, {errors} lines of the log at level error",
        arguments.steps,
        now().saturating_duration_since(began).as_secs_f64(),
        failed.len()
    ));
    show(&all, count);
    // A panic in a thread has ended the program's scope with a panic of its own.
    if failed.is_empty() && errors == 0 && count > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn add(all: &mut Coverage, one: &Coverage) {
    for (kind, count) in &one.steps {
        *all.steps.entry(*kind).or_default() += count;
    }
    let sum = |all: &mut [u64], one: &[u64]| {
        for (all, one) in all.iter_mut().zip(one) {
            *all += one;
        }
    };
    sum(&mut all.carried, &one.carried);
    let (sums, mishaps) = (&mut all.mishaps, &one.mishaps);
    sums.lost += mishaps.lost;
    sums.doubled += mishaps.doubled;
    sums.cut += mishaps.cut;
    sums.barred += mishaps.barred;
    sums.too_large += mishaps.too_large;
    sums.overflowed += mishaps.overflowed;
    sums.hairpinned += mishaps.hairpinned;
    sum(&mut all.done, &one.done);
    sum(&mut all.entries, &one.entries);
    for (family, count) in &one.families {
        *all.families.entry(*family).or_default() += count;
    }
    for (class, count) in &one.nats {
        *all.nats.entry(*class).or_default() += count;
    }
    all.pokes += one.pokes;
    all.elapsed += one.elapsed;
}

fn show(coverage: &Coverage, seeds: u64) {
    let steps: Vec<String> = coverage
        .steps
        .iter()
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    say(&format!("steps      {}", steps.join(", ")));
    let [datagrams, bytes] = coverage.carried;
    let Mishaps {
        lost,
        doubled,
        cut,
        barred,
        too_large,
        overflowed,
        hairpinned,
    } = coverage.mishaps;
    say(&format!(
        "datagrams  {datagrams} arrived, {bytes} bytes; {lost} lost, {doubled} doubled, {cut} cut, \
         {barred} to nobody, {too_large} too large, {overflowed} dropped by full queues, \
         {hairpinned} by hairpins"
    ));
    let [messages, receipts, files] = coverage.done;
    let [let_in, refused] = coverage.entries;
    say(&format!(
        "people     {messages} messages shown, {receipts} receipts, {files} files done, \
         {let_in} log-ins with a password, {refused} refused"
    ));
    let families: Vec<String> = coverage
        .families
        .iter()
        .map(|(family, count)| format!("{count} {family:?}"))
        .collect();
    say(&format!("hosts      {}", families.join(", ")));
    let nats: Vec<String> = coverage
        .nats
        .iter()
        .map(|((mapping, filtering), count)| {
            format!("{count} {}/{}", mapping.short(), filtering.short())
        })
        .collect();
    say(&format!(
        "NATs       {} (mapping/filtering)",
        nats.join(", ")
    ));
    say(&format!(
        "engines    {} woken before their time",
        coverage.pokes
    ));
    say(&format!(
        "time       {:.1} h of virtual time in {seeds} worlds",
        coverage.elapsed.as_secs_f64() / 3600.0
    ));
}

/// A bar on stderr, if that is a terminal; over seeds, or over seconds.
fn progress(len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {msg}  {eta} left");
    ProgressBar::new(len).with_style(style.expect("the template is well-formed"))
}

fn say(line: &str) {
    // A reader that has gone away misses the rest.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(line: &str) -> Range<u64> {
        let words = ["swarm"].into_iter().chain(line.split_whitespace());
        Arguments::try_parse_from(words).unwrap().range()
    }

    #[test]
    fn any_range_of_seeds_can_be_tried() {
        assert_eq!(range(""), 0..100);
        assert_eq!(range("--seeds 7"), 0..7);
        assert_eq!(range("--first 5000 --seeds 1000"), 5_000..6_000);
        assert_eq!(range("--first 30 --seconds 1"), 30..u64::MAX);
        let last = u64::MAX.to_string();
        assert_eq!(range(&format!("--first {last}")), u64::MAX..u64::MAX);
    }

    #[test]
    fn one_seed_excludes_a_range() {
        let words = ["swarm", "--seed", "1", "--first", "2"];
        assert!(Arguments::try_parse_from(words).is_err());
    }
}

//! Sizes, rates and spans of time, short enough for a line of a terminal.

use std::time::Duration;

/// Units above the byte, each a thousand times the one before.
const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

/// A number of bytes in decimal units: `999 B`, `1.0 kB`, `18.4 EB`. At most 8 columns.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // From here on the digit behind the point would round up to 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes per second, as [`size`] and `/s`, for `bytes` that took `span`. A span below a millisecond
/// counts as one.
pub fn rate(bytes: u64, span: Duration) -> String {
    let seconds = span.as_secs_f64().max(0.001);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A span that was measured: `15 ms`, `1.2 s`, then as in [`seconds`].
pub fn elapsed(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        long => seconds(long),
    }
}

/// A span in whole seconds, in its two largest units: `42 s`, `2 min 5 s`, `2 h 3 min`, `3 d 4 h`. The
/// smaller unit is left out where it is zero.
pub fn seconds(span: u64) -> String {
    let of = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {part}"),
    };
    match span {
        0..60 => format!("{span} s"),
        60..3600 => of(span / 60, "min", span % 60, "s"),
        3600..86_400 => of(span / 3600, "h", span / 60 % 60, "min"),
        86_400.. => of(span / 86_400, "d", span / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (1_234_567_890, "1.2 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn rates_are_sizes_per_second() {
        assert_eq!(rate(10_000_000, Duration::from_secs(2)), "5.0 MB/s");
        assert_eq!(rate(0, Duration::ZERO), "0 B/s");
        assert_eq!(rate(u64::MAX, Duration::ZERO), "18.4 EB/s");
        assert_eq!(rate(1, Duration::MAX), "0 B/s");
    }

    #[test]
    fn spans_have_at_most_two_units() {
        for (millis, text) in [
            (0, "0 ms"),
            (15, "15 ms"),
            (1234, "1.2 s"),
            (2000, "2.0 s"),
            (125_000, "2 min 5 s"),
            (7_384_000, "2 h 3 min"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(millis)), text);
        }
        for (span, text) in [
            (0, "0 s"),
            (42, "42 s"),
            (60, "1 min"),
            (3600, "1 h"),
            (3661, "1 h 1 min"),
            (90_000, "1 d 1 h"),
            (u64::MAX, "213503982334601 d 7 h"),
        ] {
            assert_eq!(seconds(span), text);
        }
    }
}

//! Moments as people read them: in a time zone that the caller chooses.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::time::UnixTime;

/// Date and time, `YYYY-MM-DD HH:MM:SS`, 19 columns. Question marks stand for a moment after the year
/// 9999, as a clock that is set wrong may give.
pub fn stamp(time: UnixTime, zone: &TimeZone) -> String {
    match zoned(time, zone) {
        Some(zoned) => zoned.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => "????-??-?? ??:??:??".to_owned(),
    }
}

/// As [`stamp`], but the time alone, `HH:MM:SS`, for a moment on the same day as `today`.
pub fn stamp_on(today: UnixTime, time: UnixTime, zone: &TimeZone) -> String {
    match (zoned(time, zone), zoned(today, zone)) {
        (Some(zoned), Some(today)) if zoned.date() == today.date() => {
            zoned.strftime("%H:%M:%S").to_string()
        }
        _ => stamp(time, zone),
    }
}

/// The date alone, `YYYY-MM-DD`, 10 columns; question marks as in [`stamp`].
pub fn date(time: UnixTime, zone: &TimeZone) -> String {
    match zoned(time, zone) {
        Some(zoned) => zoned.strftime("%Y-%m-%d").to_string(),
        None => "????-??-??".to_owned(),
    }
}

/// A stretch of time that a person has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// Its first millisecond.
    pub start: UnixTime,
    /// The first millisecond after it.
    pub end: UnixTime,
}

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeRangeError {
    /// It is none of the ways to write one.
    #[error(
        "it is neither a day (today, yesterday, 2026-11-23) nor a time of one ('2026-11-23 14:05') nor how long ago (30min, 12h, 3d, 2w)"
    )]
    Unknown,
    /// The calendar does not have it, or the day has no such hour.
    #[error("there is no such day or time of day")]
    Missing,
    /// Minutes or months.
    #[error("m is no unit: minutes are min, and what is months ago is given as a day (2026-11-23)")]
    Ambiguous,
    /// A number and a word.
    #[error(
        "there is no such unit: s, min, h, d and w stand for seconds, minutes, hours, days and weeks"
    )]
    Unit,
    /// Before the clock of computers begins.
    #[error("that is too long ago: before 1970")]
    TooEarly,
    /// After what a calendar of four digits has.
    #[error("that is too far away: after 9999-12-30")]
    TooLate,
}

/// Reads a day, a minute or a second in a person's zone, all of it, or how long before `now` something was: a number
/// of `s`, `min`, `h`, `d` or `w`, which has no length. `today` and `yesterday` are days.
///
/// # Errors
///
/// [`TimeRangeError`] if it is neither, or before 1970.
pub fn time_range(text: &str, zone: &TimeZone, now: UnixTime) -> Result<TimeRange, TimeRangeError> {
    if let Some((number, unit)) = counted(text) {
        let ago = span(number, unit)?;
        let millis = u64::try_from(ago.as_millis()).ok();
        let at = millis.and_then(|millis| now.as_millis().checked_sub(millis));
        let at = at.map(UnixTime::from_millis);
        let at = at.ok_or(TimeRangeError::TooEarly)?;
        return Ok(TimeRange { start: at, end: at });
    }
    let (first, next) = if let Some(date) = day(text, zone, now) {
        let next = date.tomorrow().map_err(|_| TimeRangeError::TooLate)?;
        (DateTime::from(date), DateTime::from(next))
    } else {
        let first: DateTime = text.parse().map_err(|_| no_time(text))?;
        let length = match text.matches(':').count() {
            1 => Duration::from_secs(60),
            _ => Duration::from_secs(1),
        };
        let next = first.checked_add(length);
        (first, next.map_err(|_| TimeRangeError::TooLate)?)
    };
    Ok(TimeRange {
        start: unix_time(first, zone)?,
        end: unix_time(next, zone)?,
    })
}

/// A day, by its date or as seen from `now`.
fn day(text: &str, zone: &TimeZone, now: UnixTime) -> Option<Date> {
    let today = || zoned(now, zone).map(|now| now.date());
    match text {
        "today" => today(),
        "yesterday" => today()?.yesterday().ok(),
        _ if text.contains(':') => None,
        _ => text.parse().ok(),
    }
}

/// Digits, and the letters behind them.
fn counted(text: &str) -> Option<(&str, &str)> {
    let digits = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let is_word = unit.chars().all(char::is_alphabetic);
    (!number.is_empty() && is_word).then_some((number, unit))
}

fn span(number: &str, unit: &str) -> Result<Duration, TimeRangeError> {
    let seconds: u64 = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "m" => return Err(TimeRangeError::Ambiguous),
        _ => return Err(TimeRangeError::Unit),
    };
    // More digits than a number has.
    let number: u64 = number.parse().map_err(|_| TimeRangeError::TooEarly)?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

/// Why a text cannot be read: it is written as a day is, perhaps with a time, or is something else.
fn no_time(text: &str) -> TimeRangeError {
    let (day, rest) = text.split_at_checked(10).unwrap_or((text, ""));
    let is_day = day.len() == 10
        && day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let time = rest.strip_prefix([' ', 'T']).unwrap_or(rest);
    let is_time = time
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b':');
    match is_day && is_time {
        true => TimeRangeError::Missing,
        false => TimeRangeError::Unknown,
    }
}

/// In a night in which the clocks are set, the time that is skipped or there twice is the earlier one.
fn unix_time(at: DateTime, zone: &TimeZone) -> Result<UnixTime, TimeRangeError> {
    let at = at.to_zoned(zone.clone());
    let at = at.map_err(|_| TimeRangeError::TooLate)?;
    let millis = u64::try_from(at.timestamp().as_millisecond());
    millis
        .map(UnixTime::from_millis)
        .map_err(|_| TimeRangeError::TooEarly)
}

fn zoned(time: UnixTime, zone: &TimeZone) -> Option<Zoned> {
    let millis = i64::try_from(time.as_millis()).ok()?;
    let moment = Timestamp::from_millisecond(millis).ok()?;
    Some(moment.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14 22:13:20 UTC.
    const MOMENT: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    #[test]
    fn a_moment_is_shown_in_the_zone_of_the_reader() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(stamp(MOMENT, &TimeZone::UTC), "2023-11-14 22:13:20");
        assert_eq!(stamp(MOMENT, &east), "2023-11-15 00:13:20");
        assert_eq!(date(MOMENT, &east), "2023-11-15");
    }

    #[test]
    fn a_moment_of_today_has_no_date() {
        let later = |hours: u64| UnixTime::from_millis(MOMENT.as_millis() + hours * 3_600_000);
        let shown = |today| stamp_on(today, MOMENT, &TimeZone::UTC);
        assert_eq!(shown(later(1)), "22:13:20");
        assert_eq!(shown(later(2)), "2023-11-14 22:13:20");
    }

    #[test]
    fn a_person_writes_a_day_a_time_or_how_long_ago() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let read = |text| time_range(text, &east, MOMENT);
        let from = |start, millis| {
            let start = UnixTime::from_millis(start);
            let end = UnixTime::from_millis(start.as_millis() + millis);
            Ok(TimeRange { start, end })
        };
        const NIGHT: u64 = 1_699_999_200_000;
        for (text, expected) in [
            ("2023-11-15", from(NIGHT, 86_400_000)),
            ("today", from(NIGHT, 86_400_000)),
            ("yesterday", from(NIGHT - 86_400_000, 86_400_000)),
            ("2023-11-15 00:13", from(1_699_999_980_000, 60_000)),
            ("2023-11-15T00:13:20", from(1_700_000_000_000, 1000)),
            ("20s", from(1_699_999_980_000, 0)),
            ("2h", from(1_699_992_800_000, 0)),
            ("99999999999w", Err(TimeRangeError::TooEarly)),
            ("99999999999999999999999d", Err(TimeRangeError::TooEarly)),
            ("1969-01-01", Err(TimeRangeError::TooEarly)),
            ("9999-12-31", Err(TimeRangeError::TooLate)),
            ("2026-02-29", Err(TimeRangeError::Missing)),
            ("2026-02-28 24:30", Err(TimeRangeError::Missing)),
            ("1m", Err(TimeRangeError::Ambiguous)),
            ("1y", Err(TimeRangeError::Unit)),
            ("soon", Err(TimeRangeError::Unknown)),
            ("", Err(TimeRangeError::Unknown)),
            ("3", Err(TimeRangeError::Unknown)),
            ("3 d", Err(TimeRangeError::Unknown)),
            ("-3d", Err(TimeRangeError::Unknown)),
            ("2026-11-23 noon", Err(TimeRangeError::Unknown)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn an_impossible_moment_is_no_accident() {
        let never = UnixTime::from_millis(u64::MAX);
        assert_eq!(stamp(never, &TimeZone::UTC), "????-??-?? ??:??:??");
        assert_eq!(
            stamp_on(never, never, &TimeZone::UTC),
            "????-??-?? ??:??:??"
        );
        assert_eq!(date(never, &TimeZone::UTC), "????-??-??");
        assert_eq!(date(UnixTime::default(), &TimeZone::UTC), "1970-01-01");
    }
}

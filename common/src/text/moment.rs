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

/// It is none of the ways to write a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is neither a day (2026-11-23) nor a time of one ('2026-11-23 14:05') nor how long ago (30min, 12h, 3d, 2w)"
)]
pub struct TimeRangeError;

/// Reads a day, a minute or a second in a person's zone, all of it, or how long before `now` something was: a number
/// of `s`, `min`, `h`, `d` or `w`, which has no length.
///
/// # Errors
///
/// [`TimeRangeError`] if it is neither, or before 1970.
pub fn time_range(text: &str, zone: &TimeZone, now: UnixTime) -> Result<TimeRange, TimeRangeError> {
    if let Some(ago) = span(text) {
        let at = now.saturating_sub(ago);
        return Ok(TimeRange { start: at, end: at });
    }
    let (first, next) = if let Ok(date) = text.parse::<Date>()
        && !text.contains(':')
    {
        let next = date.tomorrow().map_err(|_| TimeRangeError)?;
        (DateTime::from(date), DateTime::from(next))
    } else {
        let first: DateTime = text.parse().map_err(|_| TimeRangeError)?;
        let length = match text.matches(':').count() {
            1 => Duration::from_secs(60),
            _ => Duration::from_secs(1),
        };
        (
            first,
            first.checked_add(length).map_err(|_| TimeRangeError)?,
        )
    };
    Ok(TimeRange {
        start: unix_time(first, zone)?,
        end: unix_time(next, zone)?,
    })
}

/// A number and its unit.
fn span(text: &str) -> Option<Duration> {
    let digits = text.find(|digit: char| !digit.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}

/// In a night in which the clocks are set, the time that is skipped or there twice is the earlier one.
fn unix_time(at: DateTime, zone: &TimeZone) -> Result<UnixTime, TimeRangeError> {
    let at = at.to_zoned(zone.clone()).map_err(|_| TimeRangeError)?;
    let millis = u64::try_from(at.timestamp().as_millisecond());
    millis
        .map(UnixTime::from_millis)
        .map_err(|_| TimeRangeError)
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
            ("2023-11-15 00:13", from(1_699_999_980_000, 60_000)),
            ("2023-11-15T00:13:20", from(1_700_000_000_000, 1000)),
            ("20s", from(1_699_999_980_000, 0)),
            ("2h", from(1_699_992_800_000, 0)),
            ("99999999999999999d", from(0, 0)),
            ("soon", Err(TimeRangeError)),
            ("", Err(TimeRangeError)),
            ("3", Err(TimeRangeError)),
            ("3 d", Err(TimeRangeError)),
            ("2023-02-30", Err(TimeRangeError)),
            ("1969-01-01", Err(TimeRangeError)),
            ("9999-12-31", Err(TimeRangeError)),
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

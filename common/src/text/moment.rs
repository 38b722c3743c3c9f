//! Moments as people read them: in a time zone that the caller chooses.

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

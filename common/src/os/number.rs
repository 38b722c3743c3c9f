//! Numbers as a person types them behind an option.

use std::ops::RangeInclusive;

/// What was typed is no number, or none of those that are taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a number from {} to {} ({unit})", .range.start(), .range.end())]
pub struct NumberError {
    range: RangeInclusive<u32>,
    unit: &'static str,
}

/// Makes what reads a number within `range` of `unit`, such as "seconds".
///
/// ```
/// let read = common::os::number::within(1..=60, "seconds");
/// assert_eq!(read("7"), Ok(7));
/// let told = read("soon").unwrap_err().to_string();
/// assert_eq!(told, "it is a number from 1 to 60 (seconds)");
/// ```
pub fn within(
    range: RangeInclusive<u32>,
    unit: &'static str,
) -> impl Fn(&str) -> Result<u32, NumberError> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok();
        let within = number.filter(|number| range.contains(number));
        within.ok_or_else(|| NumberError {
            range: range.clone(),
            unit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_the_range_are_taken_and_nothing_beyond() {
        let read = within(2..=5, "people");
        for (text, number) in [("2", 2), ("5", 5), ("+3", 3), ("004", 4)] {
            assert_eq!(read(text), Ok(number));
        }
        for text in ["1", "6", "-3", "", " 3", "3.0", "three", "99999999999"] {
            let told = read(text).unwrap_err().to_string();
            assert_eq!(told, "it is a number from 2 to 5 (people)", "{text:?}");
        }
    }
}

//! Rounds of slices: the order in which sides are measured, and the arithmetic on what was measured.
//!
//! A slice is short and holds every side once, so that whatever else the machine does meets all of them.
//! A ratio is taken within a slice, between neighbours; a round is the median of its slices, and what is
//! shown is the median of the rounds. A disturbance shorter than half a round therefore changes nothing.

use super::Failure;

/// What was measured: the slices of each round, each with a value of `T`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounds<T>(Vec<Vec<T>>);

/// The middle of the rounds, with the lowest and the highest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl<T, const SIDES: usize> Rounds<[T; SIDES]> {
    /// Measures `rounds` rounds of `slices` slices, after a round that only warms up. `measure` is called
    /// with the number of a side; every second slice takes the sides in reverse, so that none of them
    /// always follows the same other one.
    ///
    /// # Errors
    ///
    /// The first error of `measure`.
    pub(super) fn measure(
        rounds: u32,
        slices: u32,
        mut measure: impl FnMut(usize) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let mut kept = Vec::new();
        for round in 0..=rounds {
            let round_slices = (0..slices)
                .map(|slice| measure_slice(slice % 2 == 1, &mut measure))
                .collect::<Result<Vec<_>, _>>()?;
            if round > 0 {
                kept.push(round_slices);
            }
        }
        Ok(Self(kept))
    }
}

impl<T> Rounds<T> {
    /// The same rounds, with something else for each slice.
    pub(super) fn map<U>(&self, of: impl Fn(&T) -> U) -> Rounds<U> {
        let slices = |round: &Vec<T>| round.iter().map(&of).collect();
        Rounds(self.0.iter().map(slices).collect())
    }

    /// The median of the rounds' medians of a number that `of` takes from each slice.
    pub(super) fn summary(&self, of: impl Fn(&T) -> f64) -> Summary {
        let middle = |round: &Vec<T>| median(&round.iter().map(&of).collect::<Vec<_>>());
        Summary::of(&self.0.iter().map(middle).collect::<Vec<_>>())
    }
}

impl Summary {
    fn of(values: &[f64]) -> Self {
        Self {
            median: median(values),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// How far the rounds are apart, as a share of the median.
    pub(super) fn spread(&self) -> f64 {
        (self.high - self.low) / self.median
    }
}

fn measure_slice<T, const SIDES: usize>(
    is_reversed: bool,
    measure: &mut impl FnMut(usize) -> Result<T, Failure>,
) -> Result<[T; SIDES], Failure> {
    let mut values = [const { None }; SIDES];
    for place in 0..SIDES {
        let side = if is_reversed {
            SIDES - 1 - place
        } else {
            place
        };
        values[side] = Some(measure(side)?);
    }
    Ok(values.map(|value| value.expect("every side has its place")))
}

/// The middle value; the mean of the two middle ones of an even number.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_summary_is_taken_from_the_medians_of_rounds() {
        let rounds = Rounds(vec![
            vec![1.0, 1.0, 900.0],
            vec![2.0, 2.0, 2.0],
            vec![4.0, 4.0, 0.0],
        ]);
        let summary = rounds.summary(|value| *value);
        let expected = Summary {
            median: 2.0,
            low: 1.0,
            high: 4.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(summary.spread(), 1.5);
    }

    #[test]
    fn a_disturbance_that_meets_both_sides_leaves_the_ratio() {
        let disturbed = vec![[2.0, 1.0], [20.0, 10.0], [200.0, 100.0], [2.0, 1.0]];
        let rounds = Rounds(vec![disturbed; 3]);
        let ratio = rounds.summary(|[ours, theirs]| ours / theirs);
        assert_eq!((ratio.median, ratio.spread()), (2.0, 0.0));
    }

    #[test]
    fn a_disturbance_of_less_than_half_a_round_leaves_the_ratio() {
        let slices = vec![[2.0, 1.0], [70.0, 1.0], [2.0, 30.0], [2.0, 1.0], [2.0, 1.0]];
        let ratio = Rounds(vec![slices]).summary(|[ours, theirs]| ours / theirs);
        assert_eq!(ratio.median, 2.0);
    }

    #[test]
    fn sides_take_turns_and_the_first_round_is_left_out() {
        let mut calls = Vec::new();
        let rounds = Rounds::<[usize; 3]>::measure(1, 2, |side| {
            calls.push(side);
            Ok(calls.len())
        });
        let once = [0, 1, 2, 2, 1, 0];
        assert_eq!(calls, [once, once].concat());
        let rounds = rounds.expect("nothing failed");
        assert_eq!(rounds, Rounds(vec![vec![[7, 8, 9], [12, 11, 10]]]));
        assert_eq!(rounds.map(|[first, ..]| *first), Rounds(vec![vec![7, 12]]));
    }

    #[test]
    fn the_first_failure_ends_it() {
        let mut calls = 0;
        let failed = Rounds::<[(); 2]>::measure(5, 5, |_| {
            calls += 1;
            Err(Failure::Wrong("broken".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(calls, 1);
    }
}

//! Medians and spreads.

/// The times of one contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The median; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Summary of some times; none of no times.
pub fn summary(times: &[f64]) -> Option<Summary> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(Summary {
        median: (lower + upper) / 2.0,
        min,
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_those_of_the_textbook() {
        let of = |times: &[f64]| summary(times).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of(&[7.0]).median, 7.0);
        assert_eq!(
            (of(&[3.0, 1.0, 2.0]).min, of(&[3.0, 1.0, 2.0]).max),
            (1.0, 3.0)
        );
        assert_eq!(summary(&[]), None);
    }
}

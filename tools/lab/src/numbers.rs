//! Numbers of measurements: what they amount to, and how they are written.

/// What some values amount to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The median; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Summary of some values; none of no values.
pub fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
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

/// Mean, and its standard error where there are at least two.
pub fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (n > 1.0).then(|| (squares / (n - 1.0) / n).sqrt()))
}

/// So many digits: `0.0123`, `12.3`; without an exponent where it can be.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let before = value.abs().log10().floor() as i32;
    let after = (digits - 1 - before).clamp(0, 6).unsigned_abs() as usize;
    match before {
        ..=6 => format!("{value:.after$}"),
        _ => format!("{value:.2e}"),
    }
}

/// `70,900`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0.0 {
        format!("−{out}")
    } else {
        out
    }
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

    #[test]
    fn means_have_a_standard_error_from_two_values_on() {
        assert_eq!(mean_and_error(&[1.0, 3.0]), (2.0, Some(1.0)));
        assert_eq!(mean_and_error(&[5.0]), (5.0, None));
    }

    #[test]
    fn numbers_have_so_many_digits() {
        let all = [0.01234, 0.999, 1.449, 12.345, 123.4, 1234.0].map(|v| significant(v, 3));
        assert_eq!(all, ["0.0123", "0.999", "1.45", "12.3", "123", "1234"]);
        let all = [0.01234, 0.87654, 38.7, 1234.5, 123_456.7, 3.2e8].map(|v| significant(v, 4));
        assert_eq!(
            all,
            ["0.01234", "0.8765", "38.70", "1234", "123457", "3.20e8"]
        );
        let all = [7.0, 1000.0, 1_234_567.0, -1000.0].map(thousands);
        assert_eq!(all, ["7", "1,000", "1,234,567", "−1,000"]);
    }
}

//! How a quantity grows with a size, and what it will be: powers of the size.

/// The exponent of the power that fits best: least squares of the logarithms. None of fewer than two sizes.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    let n = logs.len() as f64;
    let mean_x = logs.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = logs.iter().map(|p| p.1).sum::<f64>() / n;
    let over: f64 = logs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let under: f64 = logs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    (under > 0.0).then(|| over / under)
}

/// What the quantity will be at `size`, by the two measured sizes that are nearest to it; by one and the expected power
/// where there is only one. None where nothing is measured.
pub fn predicted(points: &[(f64, f64)], size: f64, expected: f64) -> Option<f64> {
    let far = |x: f64| (x / size).ln().abs();
    let mut near: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .collect();
    near.sort_by(|a, b| far(a.0).total_cmp(&far(b.0)));
    near.truncate(2);
    let (x, y) = *near.first()?;
    let power = slope(&near).unwrap_or(expected);
    Some(y * (size / x).powf(power))
}

/// What a cell may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Seconds.
    pub seconds: f64,
    /// MiB; none where the machine does not tell.
    pub mib: Option<f64>,
}

impl Limits {
    /// Why a cell that will take so much is left out; none where it is not.
    pub fn reason(&self, seconds: Option<f64>, mib: Option<f64>) -> Option<String> {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > self.seconds) {
            return Some(format!(
                "would take about {seconds:.0} s, more than the {:.0} s of --limit",
                self.seconds
            ));
        }
        let (mib, free) = mib.zip(self.mib)?;
        (mib > free).then(|| {
            format!(
                "would take about {mib:.0} MiB of memory, more than the {free:.0} that are free"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_found() {
        let square: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 8.0].map(|x: f64| (x, 3.0 * x * x)).into();
        assert!((slope(&square).unwrap() - 2.0).abs() < 1e-12);
        let flat = [(1.0, 5.0), (10.0, 5.0)];
        assert!(slope(&flat).unwrap().abs() < 1e-12);
        for none in [
            &[][..],
            &[(2.0, 3.0)],
            &[(2.0, 3.0), (2.0, 4.0)],
            &[(0.0, 1.0), (1.0, 1.0)],
        ] {
            assert_eq!(slope(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_comes_is_told_by_the_two_nearest_sizes() {
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?} {b}");
        assert_eq!(predicted(&[], 4.0, 1.0), None);
        near(predicted(&[(2.0, 10.0)], 8.0, 2.0), 160.0);
        // Flat among the small ones, linear among the large.
        let points = [(1.0, 4.0), (2.0, 4.0), (16.0, 32.0), (64.0, 128.0)];
        near(predicted(&points, 256.0, 9.0), 512.0);
        near(predicted(&points, 0.5, 9.0), 4.0);
    }

    #[test]
    fn cells_that_take_too_much_are_left_out_with_a_word() {
        let limits = Limits {
            seconds: 300.0,
            mib: Some(1000.0),
        };
        assert_eq!(limits.reason(Some(299.0), Some(999.0)), None);
        assert_eq!(limits.reason(None, None), None);
        let time = limits.reason(Some(900.0), Some(5.0)).unwrap();
        assert!(time.contains("900 s") && time.contains("--limit"), "{time}");
        let memory = limits.reason(Some(9.0), Some(5000.0)).unwrap();
        assert!(
            memory.contains("5000 MiB") && memory.contains("1000"),
            "{memory}"
        );
        let unknown = Limits {
            mib: None,
            ..limits
        };
        assert_eq!(unknown.reason(None, Some(1e9)), None);
    }
}

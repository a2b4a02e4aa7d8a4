//! Contenders that do not do the same work are not compared: what each computed in its warm-up
//! must be the same.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Largest relative difference between contenders in fp32.
const FP32: f64 = 1e-3;
/// The same where one of them computes in bf16 or TF32.
const REDUCED: f64 = 5e-2;

/// Losses that dropout has no part in but by what was learned. On a GPU PyTorch's dropout draws other masks than ours,
/// which are drawn ahead: there we can be compared with it in these alone.
const WITHOUT_DROPOUT: [&str; 2] = ["feat", "img"];

/// Named numbers that a contender computed, one map for each warm-up unit.
pub type Checks = Vec<BTreeMap<String, f64>>;

/// What one contender says.
#[derive(Debug)]
pub struct Claim<'a> {
    /// Its name.
    pub who: &'a str,
    /// Whether it is this project.
    pub ours: bool,
    /// Its arithmetic.
    pub precision: &'a str,
    /// Whether it computes on a GPU.
    pub on_gpu: bool,
    /// Its numbers.
    pub checks: &'a Checks,
}

/// Compares everyone with the first.
///
/// # Errors
/// Numbers that differ or are missing; all of them are named.
pub fn agree(work: &str, claims: &[Claim]) -> Result<()> {
    let Some((first, others)) = claims.split_first() else {
        return Ok(());
    };
    let mut complaints = Vec::new();
    for other in others {
        let exact = [first, other]
            .iter()
            .all(|claim| !matches!(claim.precision, "bf16" | "tf32"));
        let other_masks = first.on_gpu && first.ours != other.ours;
        let allowed = if exact && !other_masks { FP32 } else { REDUCED };
        if first.checks.len() != other.checks.len() {
            complaints.push(format!(
                "{} reports {} warm-up units, {} {}",
                first.who,
                first.checks.len(),
                other.who,
                other.checks.len()
            ));
        }
        for (unit, (ours, theirs)) in first.checks.iter().zip(other.checks).enumerate() {
            for name in ours
                .keys()
                .chain(theirs.keys().filter(|k| !ours.contains_key(*k)))
            {
                if other_masks && !WITHOUT_DROPOUT.contains(&name.as_str()) {
                    continue;
                }
                let (a, b) = (ours.get(name), theirs.get(name));
                if !matches!((a, b), (Some(a), Some(b)) if close(*a, *b, allowed)) {
                    complaints.push(format!(
                        "{name} of warm-up unit {}: {} {}, {} {} (allowed: {allowed:e} relative)",
                        unit + 1,
                        first.who,
                        shown(a),
                        other.who,
                        shown(b),
                    ));
                }
            }
        }
    }
    if !complaints.is_empty() {
        bail!(
            "{work}: the contenders do not do the same work, so that their times say nothing:\n  {}",
            complaints.join("\n  ")
        );
    }
    Ok(())
}

fn close(a: f64, b: f64, allowed: f64) -> bool {
    // A NaN is never close.
    (a - b).abs() <= allowed * a.abs().max(b.abs())
}

fn shown(value: Option<&f64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(values: &[(&str, f64)]) -> Checks {
        vec![values.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()]
    }

    fn compare(a: &Checks, b: &Checks, precision: &str) -> Result<()> {
        let claim = |who, precision, checks| Claim {
            who,
            ours: who == "ours",
            precision,
            on_gpu: false,
            checks,
        };
        agree(
            "w",
            &[claim("ours", "fp32", a), claim("theirs", precision, b)],
        )
    }

    #[test]
    fn other_masks_are_no_disagreement_on_a_gpu() {
        let ours = checks(&[("feat", 100.0), ("adv", 5.0)]);
        let theirs = checks(&[("feat", 101.0), ("adv", 6.0)]);
        let both = |on_gpu, own: bool| {
            let claim = |ours, checks| Claim {
                who: "one",
                ours,
                precision: "bf16",
                on_gpu,
                checks,
            };
            agree("w", &[claim(true, &ours), claim(own, &theirs)])
        };
        both(true, false).unwrap();
        assert!(both(true, true).is_err());
        assert!(both(false, false).is_err());
    }

    #[test]
    fn equal_losses_pass_and_different_ones_fail_by_name() {
        let ours = checks(&[("feat", 100.0), ("img", 5.0)]);
        compare(&ours, &checks(&[("feat", 100.05), ("img", 5.0)]), "fp32").unwrap();
        let off = checks(&[("feat", 101.0), ("img", 5.0)]);
        let text = compare(&ours, &off, "fp32").unwrap_err().to_string();
        assert!(text.contains("feat") && text.contains("101"), "{text}");
        assert!(!text.contains("img"), "{text}");
        compare(&ours, &off, "bf16").unwrap();
    }

    #[test]
    fn what_is_missing_or_not_a_number_never_agrees() {
        let ours = checks(&[("feat", 1.0)]);
        assert!(compare(&ours, &checks(&[("feat", f64::NAN)]), "bf16").is_err());
        assert!(compare(&ours, &checks(&[]), "fp32").is_err());
        assert!(compare(&checks(&[]), &ours, "fp32").is_err());
        assert!(compare(&ours, &Vec::new(), "fp32").is_err());
        compare(&checks(&[("x", 0.0)]), &checks(&[("x", 0.0)]), "fp32").unwrap();
    }
}

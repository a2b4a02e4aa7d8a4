//! What the sections say of values that they cannot have.

/// A dotted key and what is wrong with it.
pub type Complaint = (String, String);

/// Nothing, or the first complaint.
pub type Checked = Result<(), Complaint>;

/// A complaint about `key`.
///
/// # Errors
/// Always.
pub(crate) fn complain(key: &str, reason: impl Into<String>) -> Checked {
    Err((key.to_owned(), reason.into()))
}

/// Numbers that must be at least 1.
///
/// # Errors
/// The first that is 0.
pub(crate) fn at_least_one(values: &[(&str, u64)]) -> Checked {
    match values.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => complain(key, "must be at least 1"),
        None => Ok(()),
    }
}

/// Numbers that must be finite and not negative.
///
/// # Errors
/// The first that is not.
pub(crate) fn at_least_zero(values: &[(&str, f64)]) -> Checked {
    let bad = |value: f64| !(value.is_finite() && value >= 0.0);
    match values.iter().find(|(_, value)| bad(*value)) {
        Some((key, value)) => complain(key, format!("must be a number from 0 on, not {value}")),
        None => Ok(()),
    }
}

/// Numbers that must be finite and above 0.
///
/// # Errors
/// The first that is not.
pub(crate) fn above_zero(values: &[(&str, f64)]) -> Checked {
    let bad = |value: f64| !(value.is_finite() && value > 0.0);
    match values.iter().find(|(_, value)| bad(*value)) {
        Some((key, value)) => complain(key, format!("must be a number above 0, not {value}")),
        None => Ok(()),
    }
}

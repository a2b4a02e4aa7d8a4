//! Arguments that several commands take.

/// A number of minutes above 0.
///
/// # Errors
/// What is none, in words for clap.
pub fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 1e5 => Ok(minutes),
        _ => Err("a number of minutes above 0 is needed".to_owned()),
    }
}

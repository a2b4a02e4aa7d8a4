//! Tables in Markdown, and what stands in their cells.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Rows of cells below a head.
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

/// A number of a row; a dash where there is none.
pub fn cell(row: &Map<String, Value>, key: &str, digits: usize) -> String {
    match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => match value.as_f64() {
            Some(number) => format!("{number:.digits$}").replace('-', "−"),
            None => "–".to_owned(),
        },
        None => "–".to_owned(),
    }
}

/// The same in percent.
pub fn percent(row: &Map<String, Value>, key: &str, digits: usize) -> String {
    match cell(row, key, digits) {
        none if none == "–" => none,
        number => format!("{number} %"),
    }
}

/// A share, in whole percent.
pub fn share(row: &Map<String, Value>, key: &str) -> String {
    match row.get(key).and_then(Value::as_f64) {
        Some(share) => format!("{:.0} %", 100.0 * share),
        None => "–".to_owned(),
    }
}

/// The first row of a record's metrics.
pub fn metrics(record: &Value) -> Option<&Map<String, Value>> {
    record["metrics"][0].as_object()
}

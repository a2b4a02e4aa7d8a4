//! Tables as text, JSON or CSV.

use std::borrow::Cow;

use clap::ValueEnum;
use deepsim_data::terminal::{self, one_line};
use serde::Serialize;

use crate::error::{EvalError, Result};

/// How a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, within 80 columns where the names allow.
    Text,
    /// A list of objects.
    Json,
    /// A header line and one line per row.
    Csv,
}

impl Format {
    /// File name ending.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

/// Rows as JSON. Characters that a terminal would obey are escaped, as JSON allows within its texts.
///
/// # Errors
/// Values that JSON cannot hold (none of ours).
pub fn json<T: Serialize>(rows: &[T]) -> Result<String> {
    json_object(rows)
}

/// The same of one object.
///
/// # Errors
/// As [`json`].
pub fn json_object<T: Serialize + ?Sized>(object: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(object);
    let text = text.map_err(|e| EvalError::Format(e.to_string()))?;
    Ok(terminal::json(&text).into_owned() + "\n")
}

/// Rows as CSV, behind a line that names the columns; null is an empty field.
///
/// # Errors
/// As [`json`].
pub fn csv<'a, T: Serialize + Default + 'a>(
    rows: impl IntoIterator<Item = &'a T>,
) -> Result<String> {
    let bad = |e: &dyn std::fmt::Display| EvalError::Format(e.to_string());
    let written = |rows: &mut dyn Iterator<Item = &T>| -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(|e| bad(&e))?;
        }
        let bytes = writer.into_inner().map_err(|e| bad(&e))?;
        String::from_utf8(bytes).map_err(|e| bad(&e))
    };
    let text = written(&mut rows.into_iter())?;
    if !text.is_empty() {
        return Ok(text);
    }
    // The columns are known to rows alone.
    let one = written(&mut std::iter::once(&T::default()))?;
    let header = one.lines().next().unwrap_or_default();
    Ok(format!("{header}\n"))
}

/// Lines of aligned columns: the first column to the left, numbers to the right. Names with line ends in them stay on
/// their line.
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| one_line(cell)).collect())
        .collect();
    let width = |i: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(i))
            .map(|c| c.chars().count());
        cells
            .chain([header.get(i).map_or(0, |h| h.chars().count())])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |i: usize| {
        i > 0
            && rows
                .iter()
                .filter_map(|r| r.get(i))
                .all(|c| c.is_empty() || c == "-" || c.starts_with(|d: char| d.is_ascii_digit()))
    };
    let right: Vec<bool> = (0..header.len()).map(numeric).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (i, cell) in cells.enumerate() {
            let pad = " ".repeat(widths[i].saturating_sub(cell.chars().count()));
            let (before, after) = if right[i] {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            out.push_str(&format!(
                "{}{before}{cell}{after}",
                if i == 0 { "" } else { "  " }
            ));
        }
        out.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(AsRef::as_ref)));
    }
    text
}

/// A column of [`table`]: its name, and what stands in it of a row.
pub type Column<'a, T> = (&'a str, &'a dyn Fn(&T) -> String);

/// The same of rows that have a cell in each column.
pub fn table<T>(rows: &[T], all: &[Column<'_, T>]) -> String {
    let header: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let cells = |row: &T| all.iter().map(|(_, cell)| cell(row)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    columns(&header, &rows)
}

/// Rows in a format; `text` makes them readable.
///
/// # Errors
/// As [`json`].
pub fn render<T: Serialize + Default>(
    rows: &[T],
    format: Format,
    text: impl FnOnce(&[T]) -> String,
) -> Result<String> {
    match format {
        Format::Json => json(rows),
        Format::Csv => csv(rows),
        Format::Text => Ok(text(rows)),
    }
}

/// A number with so many decimals; a dash where there is none.
pub fn number(v: Option<f64>, decimals: usize) -> String {
    v.map_or("-".to_owned(), |v| format!("{v:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [
            vec!["a".into(), "1.5".into()],
            vec!["long".into(), "-".into()],
        ];
        assert_eq!(
            columns(&["name", "value"], &rows),
            "name  value\na       1.5\nlong      -\n"
        );
    }

    #[test]
    fn a_table_without_rows_has_its_columns_names() {
        #[derive(Default, Serialize)]
        struct Row {
            run: String,
            error: Option<f64>,
        }
        assert_eq!(csv(&[] as &[Row]).unwrap(), "run,error\n");
        assert_eq!(csv(&[Row::default()]).unwrap(), "run,error\n,\n");
    }

    #[test]
    fn a_name_with_a_line_end_stays_on_its_line() {
        let rows = [vec!["a\nb  9.9".into(), "1.5".into()]];
        assert_eq!(columns(&["name", "value"], &rows).lines().count(), 2);
    }
}

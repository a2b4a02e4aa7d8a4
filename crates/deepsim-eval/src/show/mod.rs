//! Sheets, tables, files: how results are shown.

pub mod apng;
pub mod format;
pub mod label;
pub mod neighbors_table;
pub mod output;
pub mod plane;
pub mod sheet;
pub mod table2_text;

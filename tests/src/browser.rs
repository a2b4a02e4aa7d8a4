//! A browser to work pages in.

use std::io::Write;
use std::path::PathBuf;

use crate::process::root;

/// A browser: the one that set-up promised, or one that is there. Without any it says so where
/// nobody can miss it, past the harness that hides the output of tests that pass. `page` is what is to be
/// worked.
pub fn find(page: &str) -> Option<PathBuf> {
    let missing = |why: &str| missing(page, why);
    match std::env::var_os("DEEPSIM_BROWSER") {
        Some(no) if no == "none" => return missing("DEEPSIM_BROWSER=none"),
        Some(named) => return Some(named.into()),
        None => {}
    }
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let on_path = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let unpacked = root().join("third_party/chromium/start");
    let found = on_path.chain([unpacked]).find(|file| file.is_file());
    found.or_else(|| missing("no Chromium or Chrome is there"))
}

fn missing(page: &str, why: &str) -> Option<PathBuf> {
    let text = format!(
        "\nNOT TESTED: {why}, so that {page} was not worked in a browser.\n\
         `cargo xtask setup --only browser` fetches one; `cargo xtask test` insists on it.\n"
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    None
}

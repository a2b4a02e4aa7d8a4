//! A browser without a screen, for the test that works the report's page: the machine's own, or
//! Debian's chromium unpacked into third_party, which needs no root and changes nothing elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt;
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::landing;
use deepsim_tools::machine::on_path;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

/// Names an own browser for the tests, or `none`: the page is not worked then.
pub const VARIABLE: &str = "DEEPSIM_BROWSER";

/// Programs that understand Chromium's options.
const NAMES: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
];

/// Starts the unpacked browser with the libraries that were unpacked beside it. The machine's own
/// fonts are used where it has any.
const STARTER: &str = r#"#!/bin/sh
tree=$(dirname "$(readlink -f "$0")")
for folder in "$tree"/usr/lib/*-linux-gnu "$tree"/lib/*-linux-gnu "$tree"/usr/lib/*-linux-gnu/pulseaudio; do
    if [ -d "$folder" ]; then
        LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
done
export LD_LIBRARY_PATH
if [ ! -e /etc/fonts/fonts.conf ]; then
    export FONTCONFIG_FILE="$tree/fonts.conf"
fi
exec "$tree/usr/lib/chromium/chromium" "$@"
"#;

/// The browser that set-up unpacked.
fn unpacked(ws: &Workspace) -> PathBuf {
    ws.third_party().join("chromium/start")
}

/// The browser that is there: the one that the environment names, the machine's, the unpacked one.
pub fn find(ws: &Workspace) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let machine = NAMES.iter().find_map(|name| on_path(name));
    machine.or_else(|| Some(unpacked(ws)).filter(|path| path.is_file()))
}

/// Makes a browser available and gives the program.
///
/// # Errors
/// A failed fetch, or a package without the program.
pub fn ensure(ws: &Workspace) -> Result<PathBuf> {
    if let Some(found) = find(ws) {
        return Ok(found);
    }
    let place = ws.third_party().join("chromium");
    landing::require_space(&ws.third_party(), 1200, "chromium and its libraries")?;
    note("fetching Debian's chromium and the libraries that this machine lacks (some 150 MB)");
    let debs = landing::sibling(&ws.downloads().join("chromium"), "staging");
    let tree = landing::sibling(&place, "staging");
    fs::create_dir_all(&tree).context("creating the browser's folder")?;
    for deb in apt::download_all("chromium", &debs)? {
        Child::new("dpkg-deb", "dpkg-deb", ws.root())
            .args([Path::new("-x"), &deb, &tree])
            .run_quietly()?;
    }
    landing::remove(&debs)?;
    if !tree.join("usr/lib/chromium/chromium").is_file() {
        landing::remove(&tree)?;
        return Err(refuse(format!(
            "the package chromium of this system holds no browser (Ubuntu's points to a snap). \
             Install Chromium or Chrome, or name one: {VARIABLE}=/path/to/chrome \
             ({VARIABLE}=none leaves the test of the report's page out)"
        )));
    }
    // Scripts of packages are not run; fontconfig's would have written this.
    let fonts = format!(
        "<?xml version=\"1.0\"?>\n<fontconfig><dir>{}</dir><cachedir prefix=\"xdg\">fontconfig</cachedir></fontconfig>\n",
        place.join("usr/share/fonts").display()
    );
    fs::write(tree.join("fonts.conf"), fonts).context("writing the browser's fonts.conf")?;
    let start = tree.join("start");
    fs::write(&start, STARTER).context("writing the browser's starter")?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))
        .context("making the browser's starter executable")?;
    landing::replace_folder(&tree, &place)?;
    Ok(unpacked(ws))
}

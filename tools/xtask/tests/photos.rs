//! Where the photos come from: Debian packages that a stand-in for apt knows, or a folder of the user's.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::Path;

use common::{photos, workspace, xtask};
use deepsim_tools::testing::stand_in;
use predicates::prelude::*;
use predicates::str::contains;

#[test]
fn own_photos_are_remembered_only_read_and_given_up_again() {
    let (ws, empty) = (workspace(), tempfile::tempdir().unwrap());
    let own = tempfile::tempdir().unwrap();
    photos(&own.path().join("deep"), 25);
    let setup = |photos: &[&str]| {
        let mut command = xtask(ws.path(), empty.path());
        command.args(["setup", "--only", "photos"]).args(photos);
        command.assert()
    };
    let shown = own.path().to_str().unwrap();
    setup(&["--photos", shown])
        .success()
        .stderr(contains("25 photos"));
    setup(&[])
        .success()
        .stderr(contains("25 photos").and(contains("only read")));
    // Back to the sample photos, which cannot be had here: the choice is kept until they can.
    setup(&["--photos", "sample"])
        .code(2)
        .stderr(contains("apt-get and dpkg-deb"));
    setup(&[]).success().stderr(contains("25 photos"));
    photos(&ws.path().join("data/photos"), 3);
    setup(&["--photos", "sample"])
        .success()
        .stderr(contains("3 photos in data/photos"));
    setup(&[])
        .success()
        .stderr(contains("3 photos in data/photos"));
    assert_eq!(fs::read_dir(own.path().join("deep")).unwrap().count(), 25);
}

/// A photo as far as set-up looks at it: many colours.
fn noise(file: &Path, seed: u32) {
    let mut state = seed;
    let data: Vec<u8> = (0..3 * 256 * 256)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut encoder = png::Encoder::new(fs::File::create(file).unwrap(), 256, 256);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&data).unwrap();
    writer.finish().unwrap();
}

/// A manifest of two packages, each with a folder of photos.
fn two_packages(ws: &Path, minimum: usize) {
    let package = |name: &str| {
        format!(
            "[[packages]]\nname = \"{name}\"\ndownload_mb = 1\nlicence = \"CC0\"\nshown = true\nskip = []\n\
             [[packages.groups]]\nname = \"{name}s\"\nfrom = \"usr/share/{name}\"\nphotos = 2\nshows = \"noise\"\n"
        )
    };
    let text = format!(
        "name = \"photos of a test\"\nminimum = {minimum}\n{}{}",
        package("cat"),
        package("dog")
    );
    fs::write(ws.join("data/manifests/photos.toml"), text).unwrap();
}

/// An apt-get that knows only the packages whose names are in `known`, and a dpkg-deb that unpacks two photos and a drawing
/// from `photos`.
fn apt(bin: &Path, photos: &Path, known: &[&str]) {
    for n in 1..=2 {
        noise(&photos.join(format!("{n}.png")), n);
    }
    fs::write(photos.join("drawn.png"), "no image at all").unwrap();
    let known: Vec<String> = known
        .iter()
        .map(|name| format!("*\"--print-uris download {name}\") exit 0 ;;"))
        .collect();
    stand_in(
        bin,
        "apt-get",
        &format!(
            r#"case "$*" in
  *update) exit 0 ;;
  {}
  *--print-uris*) exit 100 ;;
  *download*) while [ "$1" != download ]; do shift; done; shift
    for name in "$@"; do echo "$name" > "${{name}}_1.0_all.deb"; done ;;
esac"#,
            known.join("\n  ")
        ),
    );
    let unpack = format!(
        r#"read name < "$2"
/bin/mkdir -p "$3/usr/share/$name" "$3/usr/share/doc/$name"
/bin/cp "{}"/*.png "$3/usr/share/$name/"
echo "CC0 $name" > "$3/usr/share/doc/$name/copyright""#,
        photos.display()
    );
    stand_in(bin, "dpkg-deb", &unpack);
}

#[test]
fn sample_photos_come_of_the_packages_that_there_are() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let source = tempfile::tempdir().unwrap();
    let photos = ws.path().join("data/photos");
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.args(["setup", "--only", "photos"]).assert()
    };
    two_packages(ws.path(), 2);
    apt(bin.path(), source.path(), &[]);
    setup().code(1).stderr(contains("apt knows none of"));
    assert!(!photos.exists());

    apt(bin.path(), source.path(), &["dog"]);
    setup().success().stderr(
        contains("cat: apt does not know it here; left out")
            .and(contains("drawn (unreadable"))
            .and(contains(
                "2 photos in data/photos of the packages dog; not to be had here: cat",
            )),
    );
    assert!(photos.join("dogs/1.png").is_file() && !photos.join("dogs/drawn.png").exists());
    let licence = fs::read_to_string(photos.join("licences/dog.txt")).unwrap();
    assert_eq!(licence, "CC0 dog\n");
    // What is known to be missing is not asked for again.
    setup()
        .success()
        .stderr(contains("ready: 2 photos").and(contains("left out").not()));

    // Photos of a version that knew fewer packages: further ones come beside them, or are done without.
    let text = "name: before\npackage: dog 1.0 (Debian)\nphotos: 2\n";
    fs::write(photos.join("SOURCE.txt"), text).unwrap();
    apt(bin.path(), source.path(), &[]);
    setup()
        .success()
        .stderr(contains("going on without them").and(contains("ready: 2 photos")));
    apt(bin.path(), source.path(), &["cat", "dog"]);
    // What is prepared would be another dataset with more photos.
    fs::create_dir_all(ws.path().join("data/debian/train")).unwrap();
    setup().success().stderr(contains("ready: 2 photos"));
    fs::remove_dir_all(ws.path().join("data/debian")).unwrap();
    setup()
        .success()
        .stderr(contains("4 photos in data/photos of the packages dog, cat"));
    assert!(photos.join("cats/2.png").is_file() && photos.join("dogs/2.png").is_file());

    // Without a network, what was fetched before is enough, and the rest is asked for another time.
    fs::remove_dir_all(&photos).unwrap();
    let downloads = ws.path().join("third_party/downloads");
    fs::remove_file(downloads.join("cat_1.0_all.deb")).unwrap();
    apt(bin.path(), source.path(), &[]);
    setup().success().stderr(
        contains("could not be had (apt knows none of").and(contains("2 photos in data/photos")),
    );
    let text = fs::read_to_string(photos.join("SOURCE.txt")).unwrap();
    assert!(!text.contains("cat"), "{text}");
}

#[test]
fn one_package_that_fails_takes_no_other_with_it_and_is_asked_for_again() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let source = tempfile::tempdir().unwrap();
    let setup = || {
        let mut command = xtask(ws.path(), bin.path());
        command.args(["setup", "--only", "photos"]).assert()
    };
    let text = || fs::read_to_string(ws.path().join("data/photos/SOURCE.txt")).unwrap();
    two_packages(ws.path(), 2);
    apt(bin.path(), source.path(), &["cat", "dog"]);
    // It knows both, and fetches dog alone; of cat something arrives.
    let fetch = r#"case "$*" in
  *update) exit 0 ;;
  *--print-uris*) exit 0 ;;
  *" cat"*) echo half > cat_1.0_all.deb; exit 100 ;;
  *) echo dog > dog_1.0_all.deb ;;
esac"#;
    stand_in(bin.path(), "apt-get", fetch);
    setup().success().stderr(
        contains("cat: it could not be fetched; left out")
            .and(contains("2 photos in data/photos of the packages dog")),
    );
    assert!(!text().contains("cat"), "{}", text());

    // Its lists could not all be read: what it does not know may be in the others.
    let update = r#"case "$*" in
  *update) exit 100 ;;
  *"--print-uris download dog") exit 0 ;;
  *--print-uris*) exit 100 ;;
  *) echo dog > dog_1.0_all.deb ;;
esac"#;
    stand_in(bin.path(), "apt-get", update);
    fs::remove_dir_all(ws.path().join("data/photos")).unwrap();
    fs::remove_file(ws.path().join("third_party/downloads/dog_1.0_all.deb")).unwrap();
    setup()
        .success()
        .stderr(contains("could not read all of its lists"));
    assert!(!text().contains("cat"), "{}", text());
    apt(bin.path(), source.path(), &["cat"]);
    setup().success();
    assert!(text().contains("package: cat"), "{}", text());
}

#[test]
fn too_few_photos_in_the_packages_are_told_and_leave_nothing() {
    let (ws, bin) = (workspace(), tempfile::tempdir().unwrap());
    let source = tempfile::tempdir().unwrap();
    two_packages(ws.path(), 5);
    apt(bin.path(), source.path(), &["cat", "dog"]);
    xtask(ws.path(), bin.path())
        .args(["setup", "--only", "photos"])
        .assert()
        .code(1)
        .stderr(contains("only 4 photos").and(contains("--photos DIR")));
    assert!(!ws.path().join("data/photos").exists());
}

#[test]
fn photos_that_may_only_be_measured_on_are_nobodys_own() {
    let (ws, empty) = (workspace(), tempfile::tempdir().unwrap());
    let labelled = ws.path().join("data/labelled/photos");
    photos(&labelled, 25);
    let link = empty.path().join("mine");
    std::os::unix::fs::symlink(&labelled, &link).unwrap();
    for folder in [labelled, link, ws.path().join("data")] {
        xtask(ws.path(), empty.path())
            .args(["setup", "--only", "photos", "--photos"])
            .arg(&folder)
            .assert()
            .code(2)
            .stderr(contains("only be measured on"));
    }
}

#[test]
fn unusable_photo_folders_are_refused_and_change_nothing() {
    let (ws, empty) = (workspace(), tempfile::tempdir().unwrap());
    let few = tempfile::tempdir().unwrap();
    photos(few.path(), 3);
    for (folder, complaint) in [
        (few.path().to_str().unwrap(), "3 photos"),
        ("no/such/folder", "No such file"),
    ] {
        xtask(ws.path(), empty.path())
            .args(["setup", "--only", "photos", "--photos", folder])
            .assert()
            .code(2)
            .stderr(contains(complaint).and(contains(folder)));
    }
    assert!(!ws.path().join("data/photos.source").exists());
}

use super::*;
use crate::photos::sift::tests::{drawing, photo, rgb};

/// A package of two groups, of which the other tests need only the first.
fn package() -> Package {
    toml::from_str(
        r#"
name = "pictures"
download_mb = 1
licence = "per image"
shown = true
skip = ["animals/skipped"]

[[groups]]
name = "animals"
from = "usr/share/pictures"
photos = 2
shows = "animals"

[[groups]]
name = "gone"
from = "usr/share/gone"
photos = 1
shows = "what this version has not"
"#,
    )
    .unwrap()
}

/// It, unpacked.
fn unpacked(at: &Path) {
    let (pictures, doc) = (
        at.join("usr/share/pictures"),
        at.join("usr/share/doc/pictures"),
    );
    fs::create_dir_all(pictures.join("legacy")).unwrap();
    fs::create_dir_all(&doc).unwrap();
    fs::write(doc.join("copyright"), "all of them: CC0\n").unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(pictures.join(name), bytes).unwrap();
    let cat = rgb(256, photo);
    for name in ["my cat.png", "skipped.png", "legacy/old.png"] {
        write(name, &cat);
    }
    write("my cat.png.license", b"by Alice");
    write("drawn.png", &rgb(256, drawing));
    write("broken.jpg", b"\xff\xd8\xff\xe0");
    write("notes.txt", b"");
    std::os::unix::fs::symlink("legacy/old.png", pictures.join("old.png")).unwrap();
}

#[test]
fn of_a_folder_the_photos_alone_are_taken_with_what_is_said_of_their_licences() {
    let tmp = tempfile::tempdir().unwrap();
    let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
    unpacked(&from);
    let package = package();
    assert_eq!(extract(&package, &from, &to).unwrap(), 1);
    let names = |folder: &str| names_in(&to.join(folder)).unwrap();
    assert_eq!(names("animals"), HashSet::from(["my cat.png".into()]));
    assert_eq!(names("licences"), HashSet::from(["pictures.txt".into()]));
    let licences = fs::read_to_string(to.join("licences/pictures.txt")).unwrap();
    assert_eq!(
        licences,
        "all of them: CC0\n\nanimals/my cat.png:\nby Alice"
    );

    let found = Found::read(&package, &package.groups[0], &from)
        .unwrap()
        .unwrap();
    assert_eq!(found.left_out.len(), 2, "{:?}", found.left_out);
    assert!(found.left_out[0].starts_with("broken (unreadable: "));
    assert!(found.left_out[1].starts_with("drawn (flat: "));

    // photos whose licence nobody can look up are not taken
    fs::remove_file(from.join("usr/share/doc/pictures/copyright")).unwrap();
    let error = extract(&package, &from, &to).unwrap_err();
    assert!(error.to_string().contains("doc/pictures/copyright"));
}

#[test]
fn photos_of_an_earlier_version_stay_and_further_groups_come_beside_them() {
    let tmp = tempfile::tempdir().unwrap();
    let (staging, photos) = (tmp.path().join("staging"), tmp.path().join("photos"));
    fs::create_dir_all(photos.join("categorization")).unwrap();
    for (name, text) in [
        ("categorization/fish.webp", "fish"),
        ("copyright", "of fish"),
        ("SOURCE.txt", "name: before"),
    ] {
        fs::write(photos.join(name), text).unwrap();
    }
    let stage = || {
        fs::create_dir_all(staging.join("animals")).unwrap();
        fs::create_dir_all(staging.join(LICENCES)).unwrap();
        fs::write(staging.join("animals/cat.png"), "cat").unwrap();
        fs::write(staging.join("licences/pictures.txt"), "of cats").unwrap();
    };
    let package = package();
    let land = || land(&staging, &photos, &[&package], "name: after");
    let read = |name: &str| fs::read_to_string(photos.join(name)).unwrap();

    // somebody's photos in the place of new ones are left alone
    fs::create_dir(photos.join("animals")).unwrap();
    fs::write(photos.join("animals/dog.png"), "dog").unwrap();
    stage();
    let error = land().unwrap_err();
    assert!(error.to_string().contains("did not put there"), "{error}");
    assert_eq!(read("animals/dog.png"), "dog");
    assert_eq!(read("SOURCE.txt"), "name: before");

    // also those of the same name
    fs::rename(
        photos.join("animals/dog.png"),
        photos.join("animals/cat.png"),
    )
    .unwrap();
    stage();
    assert!(land().is_err());
    assert_eq!(read("animals/cat.png"), "dog");

    // what an interrupted set-up brought is replaced
    fs::write(photos.join("animals/cat.png"), "cat").unwrap();
    stage();
    land().unwrap();
    assert_eq!(read("animals/cat.png"), "cat");
    assert_eq!(read("categorization/fish.webp"), "fish");
    assert_eq!(read("licences/pictures.txt"), "of cats");
    assert_eq!(read("licences/gcompris-qt-data.txt"), "of fish");
    assert_eq!(read("SOURCE.txt"), "name: after");
    assert!(!staging.exists());
}

#[test]
fn packages_are_told_by_their_whole_name() {
    let deb = Path::new("d/scratch_1.4.0.6~dfsg1-6.1_all.deb");
    assert!(is_of(deb, "scratch"));
    assert!(!is_of(deb, "scrat") && !is_of(deb, "scratch_1.4.0.6"));
    assert!(!is_of(&checksum_file(deb), "scratch"));
}

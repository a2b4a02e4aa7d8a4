//! What `prepare` accepts as a source, and what it refuses.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::Write;

use common::command::{names, open, prepare, run};
use common::{photo, pipe};
use deepsim_data::Dataset;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

#[test]
fn sources_that_are_none() {
    let root = tempdir().unwrap();
    prepare(&root, "nowhere set")
        .code(2)
        .stderr(contains("nowhere does not exist"));
    let odd = root.path().join("odd");
    fs::create_dir_all(odd.join(".hidden")).unwrap();
    prepare(&root, "odd set")
        .code(2)
        .stderr(contains("no image in odd"));
    photo(8, 8, 1).save(odd.join(".hidden/a.png")).unwrap();
    photo(8, 8, 1)
        .save(root.path().join("outside.png"))
        .unwrap();
    fs::write(odd.join("readme.txt"), "x").unwrap();
    fs::write(odd.join("more.tar"), "x").unwrap();
    std::os::unix::fs::symlink("../outside.png", odd.join("link.png")).unwrap();
    prepare(&root, "odd set")
        .code(2)
        .stderr(contains(
            "1 .txt, 1 hidden file or folder (.hidden), 1 symbolic link, which is not followed (link.png)",
        ))
        .stderr(contains("1 tar archive: give it as the source (more.tar)"));
    fs::write(root.path().join("text.tar"), [b'x'; 2000]).unwrap();
    prepare(&root, "text.tar set")
        .code(2)
        .stderr(contains("neither a folder nor a tar archive"));
    fs::write(root.path().join("a.tar.gz"), [0x1F, 0x8B, 8, 0]).unwrap();
    prepare(&root, "a.tar.gz set")
        .code(2)
        .stderr(contains("gzip-compressed"));
    prepare(&root, "outside.png set")
        .code(2)
        .stderr(contains("neither a folder"));
    assert!(!root.path().join("set").exists());
    run(&root, "verify nowhere").code(2);
    run(&root, "inspect outside.png").code(2);
}

fn archive(root: &TempDir, name: &str) -> tar::Builder<File> {
    tar::Builder::new(File::create(root.path().join(name)).unwrap())
}

fn add(builder: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) {
    add_as(builder, tar::EntryType::Regular, path, content);
}

fn add_as(
    builder: &mut tar::Builder<impl Write>,
    kind: tar::EntryType,
    path: &str,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    // written into the header as is: the crate's own checks would refuse the attacks
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    if kind == tar::EntryType::GNUSparse {
        header.as_gnu_mut().unwrap().set_real_size(0);
    }
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

fn link(builder: &mut tar::Builder<impl Write>, kind: tar::EntryType, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_cksum();
    builder.append_link(&mut header, path, target).unwrap();
}

fn png(seed: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    photo(40, 30, seed)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn ilsvrc_in_folders_and_in_tars_of_tars_is_one_dataset() {
    let root = tempdir().unwrap();
    let synsets = ["n01440764", "n02105855"];
    let mut outer = archive(&root, "train.tar");
    for (number, synset) in synsets.iter().enumerate() {
        let mut inner = tar::Builder::new(Vec::new());
        fs::create_dir_all(root.path().join("train").join(synset)).unwrap();
        for index in 0..3 {
            let name = format!("{synset}_{index}.JPEG");
            let bytes = png(number as u32 * 3 + index);
            add(&mut inner, &name, &bytes);
            fs::write(root.path().join("train").join(synset).join(name), bytes).unwrap();
        }
        add(
            &mut outer,
            &format!("{synset}.tar"),
            &inner.into_inner().unwrap(),
        );
    }
    outer.finish().unwrap();
    prepare(&root, "train a")
        .success()
        .stderr(contains("ILSVRC-2012 training images").and(contains("resize squash")));
    prepare(&root, "train.tar b")
        .success()
        .stderr(contains("training images"));
    let (a, b) = (open(&root, "a"), open(&root, "b"));
    assert_eq!(names(&a), names(&b));
    assert_eq!(a.label(0).as_deref(), Some("n01440764"));
    assert_eq!(b.label(5).as_deref(), Some("n02105855"));
    assert!((0..6).all(|index| a.image(index).unwrap() == b.image(index).unwrap()));

    let val = root
        .path()
        .join("train/n01440764/ILSVRC2012_val_00000001.JPEG");
    fs::write(&val, png(50)).unwrap();
    prepare(&root, "train c")
        .code(2)
        .stderr(contains("both training and validation"));
    fs::create_dir(root.path().join("val")).unwrap();
    fs::rename(val, root.path().join("val/ILSVRC2012_val_00000001.JPEG")).unwrap();
    prepare(&root, "val d --resize short-crop --store jpeg")
        .success()
        .stderr(contains("validation images").and(contains("resize short-crop, store jpeg")));
    assert_eq!(open(&root, "d").label(0), None);
}

#[test]
fn hostile_and_damaged_archives_are_refused() {
    let root = tempdir().unwrap();
    let archive_of = |name: &str, members: &[(&str, &[u8])]| {
        let mut builder = archive(&root, name);
        members
            .iter()
            .for_each(|(path, content)| add(&mut builder, path, content));
        builder.finish().unwrap();
    };
    let picture = png(1);
    for path in ["../evil.png", "/etc/evil.png", "a/../../evil.png"] {
        archive_of("evil.tar", &[("good.png", &picture), (path, &picture)]);
        prepare(&root, "evil.tar set")
            .code(2)
            .stderr(contains("leaves its folder"));
    }
    archive_of(
        "good.tar",
        &[
            ("./a/x.png", &picture),
            ("y.png", &png(2)),
            ("y.png", &png(3)),
        ],
    );
    prepare(&root, "good.tar set --size 30")
        .success()
        .stdout(contains("2 images"));
    let data = open(&root, "set");
    assert_eq!(names(&data), ["a/x.png", "y.png"]);
    // of two members of one name the later wins, as when unpacking
    let later = deepsim_data::square(&photo(40, 30, 3), 30, deepsim_data::Resize::ShortCrop);
    assert_eq!(data.image(1).unwrap(), later.unwrap());

    let whole = fs::read(root.path().join("good.tar")).unwrap();
    for length in [700, 1200, whole.len() / 2] {
        fs::write(root.path().join("cut.tar"), &whole[..length]).unwrap();
        prepare(&root, "cut.tar cut")
            .code(2)
            .stderr(contains("cut.tar is damaged"));
    }
    let mut wrong = whole.clone();
    let second = wrong.windows(5).position(|name| name == b"y.png").unwrap();
    wrong[second + 100] ^= 0x55;
    fs::write(root.path().join("wrong.tar"), wrong).unwrap();
    prepare(&root, "wrong.tar cut")
        .code(2)
        .stderr(contains("wrong.tar is damaged"));
    assert!(!root.path().join("cut").exists());
}

/// A source in which there is one of everything, and what is said of it.
const SKIPPED: &str = "2 .heic (convert them to JPEG first), 1 file without an ending that is no image, 1 .db, \
     1 hidden file or folder (.DS_Store), 1 symbolic link, which is not followed (link.jpg), \
     1 tar archive: give it as the source (more.tar), 1 device, pipe or socket (pipe.png)";

#[test]
fn what_a_folder_holds_besides_images_is_named_by_every_command_that_opens_it() {
    let root = tempdir().unwrap();
    let photos = root.path().join("photos");
    fs::create_dir_all(photos.join("a")).unwrap();
    photo(40, 30, 1).save(photos.join("one.jpg")).unwrap();
    // images by their first bytes or by rarer endings: taken
    for (seed, written, name) in [
        (2, "two.jpg", "two.jfif"),
        (3, "three.png", "three"),
        (4, "four.jpg", "a/four.JPG_LARGE"),
        (5, "five.ppm", "five"),
    ] {
        photo(40, 30, seed).save(photos.join(written)).unwrap();
        fs::rename(photos.join(written), photos.join(name)).unwrap();
    }
    for name in [
        "x.HEIC",
        "a/y.heic",
        "Thumbs.db",
        "LICENCE",
        ".DS_Store",
        "more.tar",
    ] {
        fs::write(photos.join(name), "P5 is the name of this licence").unwrap();
    }
    std::os::unix::fs::symlink("one.jpg", photos.join("link.jpg")).unwrap();
    pipe(&photos.join("pipe.png"));

    prepare(&root, "photos set --size 30")
        .success()
        .stdout(contains("5 images"))
        .stderr(contains(format!("skipped: {SKIPPED}\n")));
    for (command, path) in [
        ("inspect", "photos"),
        ("verify", "photos"),
        ("inspect", "set"),
        ("verify", "set"),
    ] {
        run(&root, &format!("{command} {path}"))
            .success()
            .stderr(contains(SKIPPED));
        run(&root, &format!("inspect {path} --format json"))
            .success()
            .stdout(contains(SKIPPED.replace('"', "\\\"")));
    }
    assert_eq!(names(&open(&root, "photos")), names(&open(&root, "set")));
    assert_eq!(open(&root, "set").skipped().as_deref(), Some(SKIPPED));
    assert_eq!(
        open(&root, "photos").notes(),
        [format!("{}: skipped: {SKIPPED}", photos.display())]
    );
    // it is no part of what identifies the dataset, and goes with it
    fs::remove_file(photos.join("Thumbs.db")).unwrap();
    prepare(&root, "photos set --size 30")
        .success()
        .stdout(contains("up to date"));
    prepare(&root, "photos set --size 20 --force").success();
    assert!(!open(&root, "set").skipped().unwrap().contains(".db"));
}

#[test]
fn names_that_are_not_utf_8_are_skipped_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempdir().unwrap();
    let photos = root.path().join("photos");
    let latin = photos.join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir_all(&latin).unwrap();
    photo(40, 30, 1).save(photos.join("one.jpg")).unwrap();
    for name in ["a.jpg", "b.jpg"] {
        fs::copy(photos.join("one.jpg"), latin.join(name)).unwrap();
    }
    prepare(&root, "photos set")
        .success()
        .stdout(contains("1 images"))
        .stderr(contains("1 name that is not UTF-8: rename it (caf"));
}

#[test]
fn tars_one_behind_the_other_are_one_source() {
    let root = tempdir().unwrap();
    let tar = |names: &[&str]| {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            add(&mut builder, name, &png(name.len() as u32));
        }
        builder.into_inner().unwrap()
    };
    let (first, second) = (tar(&["a.png", "bb.png"]), tar(&["ccc.png", "dddd.png"]));
    // with one end-of-archive block, with two, and with a record of them
    for padding in [0, 512, 9 * 1024] {
        let mut both = first.clone();
        both.extend(vec![0; padding]);
        both.extend(&second);
        fs::write(root.path().join("both.tar"), both).unwrap();
        prepare(&root, "both.tar set --size 30 --force")
            .success()
            .stdout(contains("4 images"));
    }
    // in a tar in a tar as well
    let mut outer = archive(&root, "outer.tar");
    add(
        &mut outer,
        "in.tar",
        &[first.clone(), second.clone()].concat(),
    );
    outer.finish().unwrap();
    prepare(&root, "outer.tar nested --size 30")
        .success()
        .stdout(contains("4 images"));
    // what follows and is no tar is said
    let mut other = first.clone();
    other.extend(b"-----BEGIN SIGNATURE-----");
    fs::write(root.path().join("signed.tar"), other).unwrap();
    prepare(&root, "signed.tar signed --size 30")
        .success()
        .stdout(contains("2 images"))
        .stderr(contains(
            "1 stretch of data behind the archive's end that is no tar",
        ));
    // the second one is cut
    let mut cut = first;
    cut.extend(&second[..700]);
    fs::write(root.path().join("cut.tar"), cut).unwrap();
    prepare(&root, "cut.tar cut")
        .code(2)
        .stderr(contains("cut.tar is damaged"));
}

/// A class of ILSVRC-2012 that was not fetched whole.
#[test]
fn an_inner_tar_with_nothing_in_it_and_one_that_is_cut_between_members_are_named() {
    let root = tempdir().unwrap();
    let mut inner = tar::Builder::new(Vec::new());
    add(&mut inner, "a.png", &png(1));
    let whole = inner.into_inner().unwrap();
    let cut = &whole[..whole.len() - 1024];
    for (name, content, words) in [
        (
            "empty",
            &[][..],
            "1 tar archive with nothing in it (in.tar)",
        ),
        ("zeros", &[0; 10_240], "1 tar archive with nothing in it"),
        ("cut", cut, "1 end of a tar archive without an end mark"),
    ] {
        let mut outer = archive(&root, &format!("{name}.tar"));
        add(&mut outer, "good.png", &png(2));
        add(&mut outer, "in.tar", content);
        outer.finish().unwrap();
        prepare(&root, &format!("{name}.tar {name} --size 30"))
            .success()
            .stderr(contains(words));
    }
}

#[test]
fn a_hard_link_to_a_hard_link_is_the_image_and_a_circle_of_them_is_none() {
    let root = tempdir().unwrap();
    let mut builder = archive(&root, "a.tar");
    add(&mut builder, "one.png", &png(1));
    add(&mut builder, "two.png", &png(2));
    for (path, target) in [
        ("first.png", "one.png"),
        ("second.png", "first.png"),
        ("third.png", "second.png"),
        ("round.png", "about.png"),
        ("about.png", "round.png"),
    ] {
        link(&mut builder, tar::EntryType::Link, path, target);
    }
    builder.finish().unwrap();
    prepare(&root, "a.tar set --size 30")
        .success()
        .stdout(contains("2 images").and(contains("3 duplicates left out")))
        .stderr(contains(
            "2 hard links to what are no images of the archive (round.png, about.png)",
        ));
}

#[test]
fn what_lies_beside_a_prepared_dataset_or_is_missing_of_it_is_named() {
    let root = tempdir().unwrap();
    let photos = root.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for index in 0..4 {
        fs::write(photos.join(format!("{index}.png")), png(index)).unwrap();
    }
    fs::write(photos.join("notes.txt"), "x").unwrap();
    prepare(&root, "photos set --size 30 --holdout 0.5").success();
    fs::write(root.path().join("set/train/more.png"), png(9)).unwrap();
    let beside = "no part of the dataset: 1 file or folder (more.png)";
    for command in ["inspect", "verify"] {
        run(&root, &format!("{command} set"))
            .success()
            .stderr(contains(beside));
    }
    let data = open(&root, "set/train");
    assert!(data.notes().iter().any(|note| note.contains(beside)));

    fs::write(root.path().join("set/train/skipped.json"), "{").unwrap();
    run(&root, "inspect set")
        .success()
        .stderr(contains("skipped.json is damaged"));
    run(&root, "verify set")
        .code(1)
        .stdout(contains("broken: set/train: skipped.json"));

    fs::remove_dir_all(root.path().join("set/test")).unwrap();
    for command in ["inspect", "verify"] {
        run(&root, &format!("{command} set"))
            .code(2)
            .stderr(contains("`test` is missing").and(contains("set/train")));
    }
    // A source with another program's file of that name is a source.
    fs::create_dir(photos.join("train")).unwrap();
    fs::write(photos.join("train/manifest.json"), "{\"name\": \"app\"}").unwrap();
    assert_eq!(Dataset::open(&photos).unwrap().len(), 4);
}

#[test]
fn members_of_a_tar_that_are_not_taken_are_named() {
    let root = tempdir().unwrap();
    let mut builder = archive(&root, "a.tar");
    add(&mut builder, "one.png", &png(1));
    add(&mut builder, "two.png", &png(2));
    add(&mut builder, "two.png", &png(3));
    add(&mut builder, "unnamed", &png(4));
    add(&mut builder, "notes", b"text");
    add(&mut builder, ".hidden.png", &png(5));
    add_as(&mut builder, tar::EntryType::Fifo, "pipe.png", b"");
    add_as(&mut builder, tar::EntryType::GNUSparse, "holes.png", b"");
    let pax = b"31 GNU.sparse.realsize=1000000\n";
    add_as(&mut builder, tar::EntryType::XHeader, "pax", pax);
    add(&mut builder, "more-holes.png", &png(6));
    let mut link = |kind, path, target| link(&mut builder, kind, path, target);
    link(tar::EntryType::Symlink, "soft.png", "one.png");
    link(tar::EntryType::Link, "hard.png", "one.png");
    link(tar::EntryType::Link, "lost.png", "nowhere.png");
    builder.finish().unwrap();
    prepare(&root, "a.tar set --size 30")
        .success()
        // a hard link is the image once more, as in a folder: a duplicate
        .stdout(contains("3 images").and(contains("1 duplicates left out")))
        .stderr(contains(
            "skipped: 1 file without an ending that is no image, 1 hidden file or folder (.hidden.png), \
             1 symbolic link, which is not followed (soft.png), \
             1 earlier version of a member that the archive holds again later (two.png), \
             1 hard link to what is no image of the archive (lost.png), \
             2 sparse members: unpack the archive (holes.png, more-holes.png), \
             1 device, pipe or socket (pipe.png)\n",
        ));
}

#[test]
fn a_stray_beside_ilsvrc_is_skipped_by_name_and_many_are_a_reason() {
    let root = tempdir().unwrap();
    let train = root.path().join("train");
    for synset in ["n01440764", "n02105855"] {
        fs::create_dir_all(train.join(synset)).unwrap();
        for index in 0..2 {
            fs::write(train.join(format!("{synset}/{index}.JPEG")), png(index)).unwrap();
        }
    }
    fs::write(train.join("cover.png"), png(9)).unwrap();
    prepare(&root, "train one --size 30")
        .success()
        .stderr(contains("4 images: ILSVRC-2012 training images").and(contains("resize squash")))
        .stderr(contains(
            "skipped: 1 image that is not one of ILSVRC-2012 (cover.png)",
        ));
    let data = Dataset::open(&train).unwrap();
    assert_eq!(data.len(), 4);
    assert_eq!(data.label(0).as_deref(), Some("n01440764"));
    assert!(data.skipped().unwrap().contains("cover.png"));

    fs::write(train.join("other.png"), png(10)).unwrap();
    let reason = "not ILSVRC-2012 training images, which 4 of 6 images look like: \
                  2 lie outside the synset folders (cover.png, other.png)";
    prepare(&root, "train two --size 30")
        .success()
        .stderr(contains("6 images: a collection of images").and(contains(reason)));
    assert!(Dataset::open(&train).unwrap().notes()[0].contains(reason));

    let val = root.path().join("val");
    fs::create_dir(&val).unwrap();
    for index in 1..=3 {
        let name = format!("ILSVRC2012_val_{index:08}.JPEG");
        fs::write(val.join(name), png(index)).unwrap();
    }
    fs::write(val.join("montage.png"), png(9)).unwrap();
    prepare(&root, "val three --size 30")
        .success()
        .stderr(contains("3 images: ILSVRC-2012 validation images"))
        .stderr(contains(
            "1 image that is not one of ILSVRC-2012 (montage.png)",
        ));
    // one that is called so among many others
    let mixed = root.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    let one = "ILSVRC2012_val_00000001.JPEG";
    fs::copy(val.join(one), mixed.join(one)).unwrap();
    for index in 0..3 {
        fs::write(mixed.join(format!("{index}.png")), png(20 + index)).unwrap();
    }
    prepare(&root, "mixed four --size 30")
        .success()
        .stderr(contains(
            "3 are not called ILSVRC2012_val_NNNNNNNN (0.png, 1.png, 2.png)",
        ));
}

//! What `prepare` accepts as a source, and what it refuses.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io::Write;

use common::command::{deepsim_data, names, prepare};
use common::photo;
use deepsim_data::Dataset;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

#[test]
fn sources_that_are_none() {
    let root = tempdir().unwrap();
    prepare(&root, &["nowhere", "set"])
        .code(2)
        .stderr(contains("nowhere does not exist"));
    let odd = root.path().join("odd");
    fs::create_dir_all(odd.join(".hidden")).unwrap();
    prepare(&root, &["odd", "set"])
        .code(2)
        .stderr(contains("no image in odd"));
    photo(8, 8, 1).save(odd.join(".hidden/a.png")).unwrap();
    photo(8, 8, 1)
        .save(root.path().join("outside.png"))
        .unwrap();
    fs::write(odd.join("readme.txt"), "x").unwrap();
    fs::write(odd.join("more.tar"), "x").unwrap();
    std::os::unix::fs::symlink("../outside.png", odd.join("link.png")).unwrap();
    prepare(&root, &["odd", "set"])
        .code(2)
        .stderr(contains(
            "1 other files, 1 hidden files or folders, 1 symbolic links",
        ))
        .stderr(contains("1 tar archives: give one of them"));
    fs::write(root.path().join("text.tar"), [b'x'; 2000]).unwrap();
    prepare(&root, &["text.tar", "set"])
        .code(2)
        .stderr(contains("neither a folder nor a tar archive"));
    fs::write(root.path().join("a.tar.gz"), [0x1F, 0x8B, 8, 0]).unwrap();
    prepare(&root, &["a.tar.gz", "set"])
        .code(2)
        .stderr(contains("gzip-compressed"));
    prepare(&root, &["outside.png", "set"])
        .code(2)
        .stderr(contains("neither a folder"));
    assert!(!root.path().join("set").exists());
    deepsim_data(&root)
        .args(["verify", "nowhere"])
        .assert()
        .code(2);
    deepsim_data(&root)
        .args(["inspect", "outside.png"])
        .assert()
        .code(2);
}

fn add(builder: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    // written into the header as is: the crate's own checks would refuse the attacks
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, content).unwrap();
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
    let mut outer = tar::Builder::new(File::create(root.path().join("train.tar")).unwrap());
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
    prepare(&root, &["train", "a"])
        .success()
        .stderr(contains("ILSVRC-2012 training pictures").and(contains("resize squash")));
    prepare(&root, &["train.tar", "b"])
        .success()
        .stderr(contains("training pictures"));
    let open = |name| Dataset::open(&root.path().join(name)).unwrap();
    let (a, b) = (open("a"), open("b"));
    assert_eq!(names(&a), names(&b));
    assert_eq!(a.label(0).as_deref(), Some("n01440764"));
    assert_eq!(b.label(5).as_deref(), Some("n02105855"));
    assert!((0..6).all(|index| a.image(index).unwrap() == b.image(index).unwrap()));

    let val = root
        .path()
        .join("train/n01440764/ILSVRC2012_val_00000001.JPEG");
    fs::write(&val, png(50)).unwrap();
    prepare(&root, &["train", "c"])
        .code(2)
        .stderr(contains("both training and validation"));
    fs::create_dir(root.path().join("val")).unwrap();
    fs::rename(val, root.path().join("val/ILSVRC2012_val_00000001.JPEG")).unwrap();
    prepare(
        &root,
        &["val", "d", "--resize", "short-crop", "--store", "jpeg"],
    )
    .success()
    .stderr(contains("validation pictures").and(contains("resize short-crop, store jpeg")));
    assert_eq!(open("d").label(0), None);
}

#[test]
fn hostile_and_damaged_archives_are_refused() {
    let root = tempdir().unwrap();
    let archive = |name: &str, members: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(File::create(root.path().join(name)).unwrap());
        members
            .iter()
            .for_each(|(path, content)| add(&mut builder, path, content));
        builder.finish().unwrap();
    };
    let picture = png(1);
    for path in ["../evil.png", "/etc/evil.png", "a/../../evil.png"] {
        archive("evil.tar", &[("good.png", &picture), (path, &picture)]);
        prepare(&root, &["evil.tar", "set"])
            .code(2)
            .stderr(contains("leaves its folder"));
    }
    archive(
        "good.tar",
        &[
            ("./a/x.png", &picture),
            ("y.png", &png(2)),
            ("y.png", &png(3)),
        ],
    );
    prepare(&root, &["good.tar", "set", "--size", "30"])
        .success()
        .stdout(contains("2 images"));
    let data = Dataset::open(&root.path().join("set")).unwrap();
    assert_eq!(names(&data), ["a/x.png", "y.png"]);
    // of two members of one name the later wins, as when unpacking
    let later = deepsim_data::square(&photo(40, 30, 3), 30, deepsim_data::Resize::ShortCrop);
    assert_eq!(data.image(1).unwrap(), later.unwrap());

    let whole = fs::read(root.path().join("good.tar")).unwrap();
    for length in [700, 1200, whole.len() / 2] {
        fs::write(root.path().join("cut.tar"), &whole[..length]).unwrap();
        prepare(&root, &["cut.tar", "cut"])
            .code(2)
            .stderr(contains("cut.tar is damaged"));
    }
    let mut wrong = whole.clone();
    let second = wrong.windows(5).position(|name| name == b"y.png").unwrap();
    wrong[second + 100] ^= 0x55;
    fs::write(root.path().join("wrong.tar"), wrong).unwrap();
    prepare(&root, &["wrong.tar", "cut"])
        .code(2)
        .stderr(contains("wrong.tar is damaged"));
    assert!(!root.path().join("cut").exists());
}

//! Training images among held-out ones are found, whatever the two datasets are.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::command::{open, prepare};
use common::{folder, photo};
use deepsim_data::{DataError, Dataset, Flow, Overlap, shared_images};
use tempfile::tempdir;

fn plain(path: &Path) -> Dataset {
    Dataset::open(path).unwrap()
}

fn shared(a: &Dataset, b: &Dataset) -> Vec<String> {
    match shared_images(a, b, &|| Flow::Continue).unwrap() {
        Overlap::Images(found) => found.into_iter().map(|i| b.name(i).to_owned()).collect(),
        Overlap::NotComparable(why) => panic!("{why}"),
    }
}

#[test]
fn prepared_datasets_share_the_images_whose_stored_bytes_are_equal() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 12);
    prepare(&root, "photos set --size 32 --holdout 0.25").success();
    let train = open(&root, "set/train");
    let test = open(&root, "set/test");
    assert_eq!(shared(&train, &test), [""; 0]);
    assert_eq!(shared(&test, &test).len(), test.len());

    // another source, in which one image of the training set stands under another name
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    photo(70, 60, 99).save(other.join("new.png")).unwrap();
    fs::copy(photos.join(train.name(0)), other.join("known.jpg")).unwrap();
    prepare(&root, "other held --size 32").success();
    assert_eq!(shared(&train, &open(&root, "held")), ["known.jpg"]);

    // other settings: the same source is known by its listing, another is not comparable
    prepare(&root, "photos large --size 48").success();
    let large = open(&root, "large");
    assert_eq!(shared(&train, &large).len(), train.len());
    assert_eq!(shared(&large, &test).len(), test.len());
    let found = shared_images(&large, &open(&root, "held"), &|| Flow::Continue);
    assert!(matches!(found.unwrap(), Overlap::NotComparable(why) if why.contains("48 px")));
}

#[test]
fn an_image_left_out_as_a_duplicate_counts_for_the_one_that_is_kept() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    fs::copy(photos.join("00.jpg"), photos.join("zz.jpg")).unwrap();
    // the window makes all of them equal duplicates of nothing, so only the settings differ
    prepare(&root, "photos a --size 32").success();
    prepare(&root, "photos b --size 40 --holdout 0.4").success();
    let whole = open(&root, "a");
    for part in ["train", "test"] {
        let part = open(&root, &format!("b/{part}"));
        assert_eq!(shared(&whole, &part).len(), part.len());
    }
}

#[test]
fn plain_folders_share_the_images_whose_files_are_equal() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(photos.join("02.jpg"), other.join("b.jpg")).unwrap();
    // the same size, other bytes: uncompressed images of one shape
    for (folder, seed) in [(&photos, 1), (&other, 2)] {
        photo(40, 40, seed).save(folder.join("x.bmp")).unwrap();
    }
    let (a, b) = (plain(&photos), plain(&other));
    assert_eq!(shared(&a, &b), ["b.jpg"]);
    assert_eq!(shared(&b, &a), ["02.jpg"]);
    assert_eq!(shared(&a, &plain(&photos)).len(), 7);

    // equal names and sizes, so an equal digest, in another place: the bytes decide
    let twin = root.path().join("twin");
    fs::create_dir(&twin).unwrap();
    fs::copy(other.join("b.jpg"), twin.join("b.jpg")).unwrap();
    photo(40, 40, 3).save(twin.join("x.bmp")).unwrap();
    let twin = plain(&twin);
    assert_eq!(twin.digest(), b.digest());
    assert_eq!(shared(&b, &twin), ["b.jpg"]);
}

#[test]
fn a_plain_folder_and_a_prepared_dataset_share_what_is_prepared_alike() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    prepare(&root, "photos set --size 32 --holdout 0.34").success();
    let (folder, test) = (plain(&photos), open(&root, "set/test"));
    assert_eq!(shared(&folder, &test).len(), 2);
    let names: Vec<&str> = (0..2).map(|index| test.name(index)).collect();
    assert_eq!(shared(&test, &folder), names);

    prepare(&root, "photos jpeg --store jpeg").success();
    let found = shared_images(&open(&root, "jpeg"), &folder, &|| Flow::Continue);
    assert!(matches!(found.unwrap(), Overlap::NotComparable(why) if why.contains("plain folder")));
}

#[test]
fn a_comparison_ends_when_it_is_told_to() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 4);
    fs::create_dir(root.path().join("copy")).unwrap();
    fs::copy(photos.join("00.jpg"), root.path().join("copy/a.jpg")).unwrap();
    let (a, b) = (plain(&photos), open(&root, "copy"));
    let stopped = shared_images(&a, &b, &|| Flow::Stop);
    assert!(
        matches!(stopped, Err(DataError::Interrupted)),
        "{stopped:?}"
    );
}

//! Parts of a dataset, prepared by several processes and merged, are the dataset that one process makes.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::command::{contents, no_partial_is_left, open, prepare, run};
use common::{folder, halve, photo};
use deepsim_data::manifest::Store;
use deepsim_data::prepare::{Existing, LARGE_SOURCE};
use deepsim_data::{
    DataError, Dataset, Event, Flow, Merge, Outcome, PartFault, Prepare, Share, SquareWindow,
    merge, prepare_part,
};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

/// A folder with one of everything that a dataset takes note of: fourteen images, two that show the same as an earlier
/// one (a neighbour and one far away), one that is turned, one that is corrupt, and a file that is no image.
fn photos(root: &TempDir) -> PathBuf {
    let photos = folder(root.path(), 12);
    fs::copy(photos.join("02.jpg"), photos.join("02b.jpg")).unwrap();
    fs::copy(photos.join("00.jpg"), photos.join("zz.jpg")).unwrap();
    turn(&photos.join("04.jpg"));
    halve(&photos.join("sub/05.png"));
    fs::write(photos.join("notes.txt"), "mine").unwrap();
    photos
}

/// Gives a JPEG an EXIF orientation, a quarter turn.
fn turn(path: &Path) {
    const APP1: &[u8] =
        b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let bytes = fs::read(path).unwrap();
    fs::write(path, [&bytes[..2], APP1, &bytes[2..]].concat()).unwrap();
}

/// All files of a dataset by their names below it.
fn files(set: &Path) -> Vec<(String, Vec<u8>)> {
    let skip = set.display().to_string().len();
    let all = contents(set).into_iter();
    all.map(|(name, bytes)| (name[skip..].to_owned(), bytes))
        .collect()
}

fn go_on(_: Event) -> Flow {
    Flow::Continue
}

/// Prepares a dataset in so many parts, beside the place that the request has for the whole.
fn in_parts(request: &Prepare, of: u32) -> Merge {
    let place = |name: String| request.out.with_file_name(name);
    let mut parts = Vec::new();
    for number in 1..=of {
        let part = Prepare {
            out: place(format!("part-{number}-of-{of}")),
            existing: Existing::Replace,
            ..request.clone()
        };
        let share = Share::new(number, of).unwrap();
        prepare_part(&part, share, &mut go_on).unwrap();
        parts.push(part.out);
    }
    // an order that is neither theirs nor the reverse
    parts.rotate_left(of as usize / 2);
    parts.reverse();
    Merge {
        out: place(format!("merged-of-{of}")),
        parts,
        quarantine: None,
        existing: Existing::Replace,
    }
}

/// Prepares in one process, and in several parts: outcome and files must be equal.
fn parts_are_the_whole(request: &Prepare) {
    let whole = deepsim_data::prepare(request, &mut go_on).unwrap();
    let expected = files(&request.out);
    for of in [1, 2, 3, 7] {
        let merging = in_parts(request, of);
        let before: Vec<_> = merging.parts.iter().map(|part| files(part)).collect();
        let outcome = merge(&merging, &mut go_on).unwrap();
        assert_eq!(outcome, whole, "{of} parts");
        let found = files(&merging.out);
        let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&found), names(&expected), "{of} parts");
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(found == expected, "{of} parts: {name} differs");
        }
        let after: Vec<_> = merging.parts.iter().map(|part| files(part)).collect();
        assert!(before == after, "{of} parts: merge changed a part");
    }
}

fn request(root: &TempDir) -> Prepare {
    Prepare {
        quarantine: 1,
        existing: Existing::Replace,
        ..Prepare::new(photos(root), root.path().join("whole"), 32)
    }
}

#[test]
fn raw_images_merged_of_any_number_of_parts_equal_one_preparation() {
    let root = tempdir().unwrap();
    let request = request(&root);
    parts_are_the_whole(&request);
    let set = root.path().join("merged-of-3");
    let text = fs::read_to_string(set.join("manifest.json")).unwrap();
    assert!(text.contains("\"turned\": 1"), "{text}");
    assert!(text.contains(r#"{"path":"02b.jpg","of":"02.jpg"}"#));
    assert!(text.contains(r#"{"path":"zz.jpg","of":"00.jpg"}"#));
    assert!(text.contains(r#"{"path":"sub/05.png","reason":"#));
    assert!(set.join("skipped.json").exists());
    run(&root, "verify merged-of-3")
        .success()
        .stdout(contains("11 images"));
}

#[test]
fn jpeg_images_merged_of_parts_equal_one_preparation() {
    let root = tempdir().unwrap();
    parts_are_the_whole(&Prepare {
        store: Some(Store::Jpeg),
        ..request(&root)
    });
    run(&root, "verify merged-of-7").success();
}

#[test]
fn both_sides_of_a_split_merged_of_parts_equal_one_preparation() {
    let root = tempdir().unwrap();
    parts_are_the_whole(&Prepare {
        holdout: Some(0.3),
        seed: 5,
        ..request(&root)
    });
    run(&root, "verify merged-of-2")
        .success()
        .stdout(contains("merged-of-2/train").and(contains("merged-of-2/test")));
}

#[test]
fn a_split_in_three_merged_of_parts_equals_one_preparation() {
    let root = tempdir().unwrap();
    parts_are_the_whole(&Prepare {
        holdout: Some(0.3),
        validation: Some(0.3),
        ..request(&root)
    });
}

#[test]
fn windows_and_ignored_orientations_merged_of_parts_equal_one_preparation() {
    let root = tempdir().unwrap();
    let (left, top, side) = (3, 4, 60);
    parts_are_the_whole(&Prepare {
        window: Some(SquareWindow { left, top, side }),
        orientation: Some(deepsim_data::Orientation::Ignore),
        ..request(&root)
    });
}

#[test]
fn a_tar_prepared_in_parts_equals_one_preparation() {
    let root = tempdir().unwrap();
    let request = request(&root);
    let tar = root.path().join("photos.tar");
    let mut builder = tar::Builder::new(fs::File::create(&tar).unwrap());
    builder.append_dir_all("in", &request.source).unwrap();
    builder.finish().unwrap();
    parts_are_the_whole(&Prepare {
        source: tar,
        ..request
    });
}

#[test]
fn more_parts_than_images_leave_empty_ones_that_merge() {
    let root = tempdir().unwrap();
    folder(root.path(), 2);
    let mut parts = Vec::new();
    for number in 1..=5 {
        let words = format!("photos part-{number} --size 16 --part {number}/5");
        let images = usize::from(number <= 2);
        prepare(&root, &words)
            .success()
            .stdout(contains(format!(
                "done: {images} images in part-{number} (part {number}/5)"
            )))
            .stderr(contains(format!(
                "part {number}/5: {images} of these images"
            )));
        parts.push(format!("part-{number}"));
    }
    prepare(&root, "photos whole --size 16").success();
    run(&root, &format!("merge merged {}", parts.join(" ")))
        .success()
        .stdout("done: 2 images in merged, 1.54 kB\n")
        .stderr(contains("the 5 parts are kept"));
    assert_eq!(
        files(&root.path().join("merged")),
        files(&root.path().join("whole"))
    );
}

#[test]
fn a_part_is_no_dataset_and_says_merge() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    prepare(&root, "photos part --size 16 --holdout 0.5 --part 1/2")
        .success()
        .stderr(contains("deepsim-data merge"));
    for command in ["inspect", "verify"] {
        run(&root, &format!("{command} part"))
            .code(2)
            .stderr(contains("part 1/2").and(contains("deepsim-data merge")));
    }
    let error = Dataset::open(&root.path().join("part")).err().unwrap();
    assert!(
        matches!(error, DataError::Part(PartFault::NotMerged { .. })),
        "{error}"
    );
    // another program's file of that name makes no part of a folder
    fs::write(
        root.path().join("photos/part.json"),
        "{\"format\": \"app\"}",
    )
    .unwrap();
    assert_eq!(open(&root, "photos").len(), 4);
}

#[test]
fn a_part_decides_its_store_by_the_images_of_all() {
    let root = tempdir().unwrap();
    let many = root.path().join("many");
    fs::create_dir(&many).unwrap();
    for index in 0..LARGE_SOURCE {
        // never decoded: the listing is enough to know
        fs::write(many.join(format!("{index}.png")), b"").unwrap();
    }
    let request = Prepare::new(&many, root.path().join("part"), 16);
    let mut planned = None;
    let share = Share::new(2, 1000).unwrap();
    let stopped = prepare_part(&request, share, &mut |event| match event {
        Event::Planned { store, part, .. } => {
            planned = Some((store, part));
            Flow::Stop
        }
        _ => Flow::Continue,
    });
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    assert_eq!(planned, Some((Store::Jpeg, Some((share, 20)))));
}

#[test]
fn a_part_reads_no_image_of_another() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    halve(&photos.join("02.jpg"));
    prepare(&root, "photos first --size 16 --part 1/2")
        .code(1)
        .stderr(contains("photos/02.jpg: the file is truncated"));
    assert!(!root.path().join("first").exists());
    no_partial_is_left(&root);
    prepare(&root, "photos second --size 16 --part 2/2").success();
}

#[test]
fn a_prepared_part_is_up_to_date_and_another_is_replaced_by_force_only() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    let part = "photos part --size 32 --part 1/3";
    prepare(&root, part)
        .success()
        .stdout("done: 2 images in part (part 1/3), 6.14 kB\n");
    let before = contents(&root.path().join("part"));
    prepare(&root, part)
        .success()
        .stdout("up to date: 2 images in part (part 1/3)\n");
    for (words, difference) in [
        ("--size 32 --part 2/3", "each part needs an OUT of its own"),
        ("--size 24 --part 1/3", "made with --size 32"),
        (
            "--size 32 --part 1/3 --window 1,1,9",
            "made with no --window",
        ),
        ("--size 32", "it is part 1/3 of one"),
    ] {
        prepare(&root, &format!("photos part {words}"))
            .code(2)
            .stderr(contains(difference).and(contains("--force")));
        assert_eq!(contents(&root.path().join("part")), before);
    }
    // a file of it is gone, another is cut
    fs::remove_file(root.path().join("part/shard-00000.bin")).unwrap();
    prepare(&root, part).code(2).stderr(contains("incomplete"));
    prepare(&root, &format!("{part} --force")).success();
    assert_eq!(contents(&root.path().join("part")), before);
    let records = root.path().join("part/records.jsonl");
    halve(&records);
    prepare(&root, part).code(2).stderr(contains("incomplete"));
    // the source has changed
    photo(20, 20, 9).save(photos.join("new.png")).unwrap();
    prepare(&root, part)
        .code(2)
        .stderr(contains("made from 6 images with other names or sizes"));
    // a dataset where a part is asked for, and a part where a dataset is
    prepare(&root, "photos part --size 32 --force").success();
    prepare(&root, part).code(2).stderr(contains("it is whole"));
    prepare(&root, &format!("{part} --force")).success();
    // never anything else
    fs::write(root.path().join("part/notes.txt"), "mine").unwrap();
    prepare(&root, "photos part --size 24 --part 1/3 --force")
        .code(2)
        .stderr(contains("notes.txt"));
    no_partial_is_left(&root);
}

#[test]
fn an_interrupted_part_leaves_nothing() {
    let root = tempdir().unwrap();
    let request = Prepare::new(folder(root.path(), 4), root.path().join("part"), 16);
    let share = Share::new(1, 2).unwrap();
    let stopped = prepare_part(&request, share, &mut |event| match event {
        Event::Publishing => Flow::Stop,
        _ => Flow::Continue,
    });
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    assert!(!request.out.exists());
    no_partial_is_left(&root);
}

#[test]
fn what_is_no_part_on_the_command_line_is_refused_with_what_to_give() {
    let root = tempdir().unwrap();
    folder(root.path(), 2);
    for (part, expected) in [
        ("0/4", "counted from 1 to 4"),
        ("5/4", "counted from 1 to 4"),
        ("1/0", "at least one part"),
        ("-1/4", "such as 3/16"),
        ("x", "such as 3/16"),
        ("3", "such as 3/16"),
    ] {
        prepare(&root, &format!("photos part --part {part}"))
            .code(2)
            .stderr(contains(expected));
    }
    assert!(!root.path().join("part").exists());
    for command in ["prepare", "merge"] {
        run(&root, &format!("{command} --help"))
            .success()
            .stdout(contains("Examples").and(contains("deepsim-data merge data/mine parts/*")));
    }
}

#[test]
fn the_outcome_of_a_part_counts_its_own_images() {
    let root = tempdir().unwrap();
    let request = request(&root);
    let outcomes: Vec<Outcome> = (1..=2)
        .map(|number| {
            let part = Prepare {
                out: root.path().join(format!("part-{number}")),
                ..request.clone()
            };
            let share = Share::new(number, 2).unwrap();
            prepare_part(&part, share, &mut go_on).unwrap()
        })
        .collect();
    // zz.jpg repeats an image of the other part, which only merge can see
    let counts = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Written {
            images,
            duplicates,
            quarantined,
            oriented,
            ..
        } => (images, duplicates, quarantined, oriented),
        Outcome::UpToDate { .. } => panic!("{outcome:?}"),
    });
    let counts: Vec<_> = counts.collect();
    assert_eq!(counts, [(6, 1, 0, 1), (6, 0, 1, 0)]);
}

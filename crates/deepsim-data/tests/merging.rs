//! What `merge` refuses, by name and with what to do, and what it leaves behind: a whole dataset, or nothing.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use assert_cmd::assert::Assert;
use common::command::{contents, no_partial_is_left, open, prepare, run};
use common::{folder, halve, photo};
use deepsim_data::prepare::Existing;
use deepsim_data::{DataError, Event, Flow, Merge, Prepare, Share, merge, prepare_part};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::{TempDir, tempdir};

/// Prepares parts `NAME-1` … of `source` with these options.
fn parts(root: &TempDir, source: &str, name: &str, of: u32, options: &str) {
    for number in 1..=of {
        let words = format!("{source} {name}-{number} {options} --part {number}/{of}");
        prepare(root, &words).success();
    }
}

/// Merges into `out`, which must not appear. Nothing else may change either.
fn refused(root: &TempDir, code: i32, arguments: &str) -> Assert {
    let before = contents(root.path());
    let assert = run(root, &format!("merge {arguments}")).code(code);
    assert!(!root.path().join("out").exists(), "{arguments}");
    assert!(contents(root.path()) == before, "{arguments}");
    no_partial_is_left(root);
    assert
}

#[test]
fn missing_doubled_and_miscounted_parts_are_refused_by_number() {
    let root = tempdir().unwrap();
    folder(root.path(), 6);
    parts(&root, "photos", "p", 4, "--size 16");
    parts(&root, "photos", "q", 2, "--size 16");
    refused(&root, 2, "out p-4 p-2")
        .stderr(contains("missing of 4 parts: 1, 3;").and(contains("--part NUMBER/4")));
    refused(&root, 2, "out p-1 p-2 p-3 p-4 p-2").stderr(contains("p-2 and p-2 are both part 2/4"));
    fs::create_dir(root.path().join("copy")).unwrap();
    for (name, bytes) in contents(&root.path().join("p-3")) {
        let name = Path::new(&name).file_name().unwrap();
        fs::write(root.path().join("copy").join(name), bytes).unwrap();
    }
    refused(&root, 2, "out p-1 copy p-2 p-3 p-4")
        .stderr(contains("copy and p-3 are both part 3/4"));
    refused(&root, 2, "out p-1 q-2").stderr(contains("q-2 is part 2/2 and p-1 is part 1/4"));
    run(&root, "merge out").code(2).stderr(contains("<PART>"));
    // a copy in the place of the part is as good
    run(&root, "merge out p-1 copy p-2 p-4").success();
}

#[test]
fn many_missing_parts_are_counted() {
    let root = tempdir().unwrap();
    folder(root.path(), 2);
    prepare(&root, "photos p --size 16 --part 3/4000000000").success();
    refused(&root, 2, "out p").stderr(contains(
        "missing of 4000000000 parts: 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 3999999987 more;",
    ));
}

#[test]
fn parts_made_with_another_option_are_refused_and_the_option_is_named() {
    let root = tempdir().unwrap();
    folder(root.path(), 6);
    prepare(&root, "photos p-1 --size 16 --part 1/2").success();
    for (options, here, there) in [
        ("--size 20", "--size 20", "--size 16"),
        (
            "--size 16 --resize squash",
            "--resize squash",
            "--resize short-crop",
        ),
        (
            "--size 16 --window 1,2,30",
            "--window 1,2,30",
            "no --window",
        ),
        (
            "--size 16 --orientation ignore",
            "--orientation ignore",
            "--orientation apply",
        ),
        ("--size 16 --store jpeg", "--store jpeg", "--store raw"),
        ("--size 16 --holdout 0.25", "--holdout 0.25", "no --holdout"),
    ] {
        prepare(&root, &format!("photos p-2 {options} --part 2/2 --force")).success();
        refused(&root, 2, "out p-2 p-1").stderr(contains(format!(
            "p-1 (part 1/2) was prepared with {there}, and p-2 (part 2/2) with {here}:"
        )));
    }
    // the seed matters where something is held out
    parts(&root, "photos", "r", 2, "--size 16 --holdout 0.5");
    prepare(
        &root,
        "photos r-2 --size 16 --holdout 0.5 --seed 3 --part 2/2 --force",
    )
    .success();
    refused(&root, 2, "out r-1 r-2").stderr(contains("--seed 3").and(contains("--seed 0")));
}

#[test]
fn parts_of_another_or_a_changed_source_are_refused() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    parts(&root, "photos", "p", 2, "--size 16");
    std::os::unix::fs::symlink("photos", root.path().join("pictures")).unwrap();
    parts(&root, "pictures", "q", 2, "--size 16");
    refused(&root, 2, "out p-1 q-2").stderr(contains("\"pictures\"").and(contains("\"photos\"")));
    photo(30, 30, 9).save(photos.join("new.png")).unwrap();
    prepare(&root, "photos r-2 --size 16 --part 2/2").success();
    refused(&root, 2, "out p-1 r-2").stderr(
        contains("r-2 (part 2/2, of 7 images) and p-1 (part 1/2, of 6 images)")
            .and(contains("if the source has changed")),
    );
}

#[test]
fn what_is_no_part_is_refused_by_what_it_is() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    parts(&root, "photos", "p", 2, "--size 16");
    prepare(&root, "photos set --size 16").success();
    prepare(&root, "photos split --size 16 --holdout 0.5").success();
    fs::create_dir(root.path().join("app")).unwrap();
    fs::write(root.path().join("app/part.json"), "{\"format\": \"app\"}").unwrap();
    for (path, expected) in [
        ("nowhere", "nowhere does not exist"),
        (
            "photos",
            "photos is no part of a dataset (it has no part.json)",
        ),
        ("photos/00.jpg", "is no part of a dataset (a file)"),
        ("set", "set is no part of a dataset (a whole dataset)"),
        ("split", "split is no part of a dataset (a whole dataset)"),
        ("app", "app is no part of a dataset (its part.json is none"),
    ] {
        refused(&root, 2, &format!("out p-1 {path}")).stderr(contains(expected));
    }
    let file = root.path().join("p-2/part.json");
    let text = fs::read_to_string(&file).unwrap();
    for (change, expected) in [
        (
            ("\"version\": 1", "\"version\": 2"),
            "p-2 is a part of format version 2",
        ),
        (("\"size\": 16", "\"size\": 17"), "does not match its seal"),
        (("\"2/2\"", "\"3/2\""), "no part 3 of 2"),
        (("\"size\": 16", "\"size\": -1"), "p-2/part.json is damaged"),
    ] {
        fs::write(&file, text.replacen(change.0, change.1, 1)).unwrap();
        refused(&root, 2, "out p-1 p-2").stderr(contains(expected));
    }
}

#[test]
fn an_output_in_a_part_and_a_part_in_the_output_are_refused() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    fs::create_dir(root.path().join("all")).unwrap();
    parts(&root, "photos", "all/p", 2, "--size 16");
    std::os::unix::fs::symlink("all/p-2", root.path().join("link")).unwrap();
    for out in [
        "all/p-1",
        "all/p-1/out",
        "all/p-2/deep/er/out",
        "link/out",
        "all",
        ".",
    ] {
        refused(&root, 2, &format!("{out} all/p-1 all/p-2 --force"))
            .stderr(contains("must lie beside each other"));
    }
    run(&root, "merge all/out all/p-1 all/p-2").success();
}

#[test]
fn the_quarantine_counts_for_all_parts_together() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    halve(&photos.join("02.jpg"));
    halve(&photos.join("sub/03.png"));
    parts(&root, "photos", "p", 2, "--size 16 --quarantine 1");
    refused(&root, 1, "out p-1 p-2")
        .stderr(contains("2 corrupt images, 1 allowed"))
        .stderr(contains("  photos/02.jpg: the file is truncated").count(1))
        .stderr(contains("  photos/sub/03.png: ").count(1))
        .stderr(contains("--quarantine 2"));
    run(&root, "merge out p-1 p-2 --quarantine 2")
        .success()
        .stdout(contains("4 images").and(contains("2 corrupt photos left out")))
        .stderr(contains("corrupt, left out: photos/02.jpg: the file is truncated").count(1));
    prepare(&root, "photos set --size 16 --quarantine 2").success();
    let files = |set: &str| -> Vec<Vec<u8>> {
        let all = contents(&root.path().join(set)).into_iter();
        all.map(|(_, bytes)| bytes).collect()
    };
    assert_eq!(files("out"), files("set"));
    fs::remove_dir_all(root.path().join("out")).unwrap();

    // parts that were given other quarantines need one for the whole
    prepare(&root, "photos q-2 --size 16 --quarantine 5 --part 2/2").success();
    refused(&root, 2, "out p-1 q-2").stderr(contains(
        "q-2 was prepared with --quarantine 5 and p-1 with --quarantine 1",
    ));
    run(&root, "merge out p-1 q-2 --quarantine 2").success();
    // a part that was prepared with another is up to date if it leaves out no more
    prepare(&root, "photos q-2 --size 16 --quarantine 1 --part 2/2")
        .success()
        .stdout(contains("up to date"));
    prepare(&root, "photos q-2 --size 16 --part 2/2")
        .code(2)
        .stderr(contains("leaves out 1 corrupt photos"));
}

#[test]
fn sources_without_a_whole_image_make_no_dataset() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 2);
    halve(&photos.join("00.jpg"));
    halve(&photos.join("sub/01.png"));
    parts(&root, "photos", "p", 2, "--size 16 --quarantine 2");
    refused(&root, 1, "out p-1 p-2").stderr(contains("every one is corrupt"));
}

#[test]
fn a_damaged_part_is_named_and_nothing_is_merged() {
    let root = tempdir().unwrap();
    folder(root.path(), 6);
    parts(&root, "photos", "p", 2, "--size 16");
    let damaged = |name: &str, change: fn(&mut Vec<u8>), code: i32| {
        let file = root.path().join(name);
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let assert = refused(&root, code, "out p-1 p-2");
        fs::write(&file, whole).unwrap();
        assert
    };
    damaged("p-2/shard-00000.bin", |bytes| bytes[800] ^= 1, 1).stderr(contains(
        "sub/03.png in p-2/shard-00000.bin: its bytes do not match their checksum",
    ));
    damaged("p-1/records.jsonl", |bytes| bytes[12] ^= 1, 1)
        .stderr(contains("p-1/records.jsonl is damaged"));
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(20);
    for name in ["p-2/shard-00000.bin", "p-2/records.jsonl"] {
        damaged(name, cut, 2).stderr(contains(name).and(contains("the copy is incomplete")));
    }
    damaged("p-2/part.json", cut, 2).stderr(contains("p-2 is no part of a dataset"));
    fs::rename(
        root.path().join("p-1/shard-00000.bin"),
        root.path().join("aside"),
    )
    .unwrap();
    refused(&root, 2, "out p-1 p-2").stderr(contains("cannot read p-1/shard-00000.bin"));
}

/// No byte of a part can change unnoticed: the merged dataset is the right one, or there is none.
#[test]
fn a_flipped_byte_of_a_part_is_refused_or_changes_nothing() {
    let root = tempdir().unwrap();
    let request = Prepare {
        holdout: Some(0.5),
        ..Prepare::new(folder(root.path(), 2), root.path().join("part"), 4)
    };
    let share = Share::new(1, 1).unwrap();
    prepare_part(&request, share, &mut |_| Flow::Continue).unwrap();
    let merging = Merge {
        out: root.path().join("out"),
        parts: vec![request.out.clone()],
        quarantine: None,
        existing: Existing::Keep,
    };
    let merged = || {
        let result = merge(&merging, &mut |_| Flow::Continue);
        let files = result.ok().map(|_| contents(&merging.out));
        let _ = fs::remove_dir_all(&merging.out);
        files
    };
    let expected = merged();
    assert!(expected.is_some());
    let mut refusals = 0;
    for name in ["part.json", "records.jsonl", "shard-00000.bin"] {
        let file = request.out.join(name);
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&file, &bytes).unwrap();
            match merged() {
                None => refusals += 1,
                found => assert!(found == expected, "{name}: byte {at}"),
            }
        }
        fs::write(&file, whole).unwrap();
    }
    assert!(refusals > 100, "{refusals}");
    no_partial_is_left(&root);
}

#[test]
fn an_interrupted_merge_leaves_nothing() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    parts(&root, "photos", "p", 2, "--size 16");
    let merging = Merge {
        out: root.path().join("out"),
        parts: [1, 2]
            .map(|number| root.path().join(format!("p-{number}")))
            .to_vec(),
        quarantine: None,
        existing: Existing::Keep,
    };
    let before = contents(root.path());
    let moments: [fn(&Event) -> bool; 4] = [
        |event| matches!(event, Event::Planned { .. }),
        |event| matches!(event, Event::Started(_)),
        |event| matches!(event, Event::Progress { .. }),
        |event| matches!(event, Event::Publishing),
    ];
    for (number, is_now) in moments.into_iter().enumerate() {
        let stopped = merge(&merging, &mut |event| {
            if is_now(&event) {
                Flow::Stop
            } else {
                Flow::Continue
            }
        });
        assert!(
            matches!(stopped, Err(DataError::Interrupted)),
            "{number}: {stopped:?}"
        );
        assert!(!merging.out.exists(), "{number}");
        assert!(contents(root.path()) == before, "{number}");
        no_partial_is_left(&root);
    }
}

#[test]
fn a_merged_dataset_is_up_to_date_and_another_is_replaced_by_force_only() {
    let root = tempdir().unwrap();
    folder(root.path(), 6);
    parts(&root, "photos", "p", 2, "--size 16");
    parts(&root, "photos", "q", 3, "--size 20");
    run(&root, "merge out p-1 p-2")
        .success()
        .stdout("done: 6 images in out, 4.61 kB\n")
        .stderr(contains("6 images: a collection of images"))
        .stderr(contains("the 2 parts are kept"));
    let merged = contents(&root.path().join("out"));
    for again in [
        "merge out p-2 p-1",
        // prepare finds its own dataset there as well
        "prepare photos out --size 16",
    ] {
        run(&root, again)
            .success()
            .stdout("up to date: 6 images in out\n");
        assert_eq!(contents(&root.path().join("out")), merged);
    }
    run(&root, "merge out q-1 q-2 q-3")
        .code(2)
        .stderr(contains("stored at 16 px").and(contains("--force")));
    assert_eq!(contents(&root.path().join("out")), merged);
    run(&root, "merge out q-1 q-2 q-3 --force").success();
    assert_eq!(open(&root, "out").stored_size(), 20);
    // never anything else
    run(&root, "merge photos q-1 q-2 q-3 --force")
        .code(2)
        .stderr(contains("is no dataset of ours"));
    // a part in the place of the output, which is none of those that are merged
    run(&root, "merge p-1 q-1 q-2 q-3")
        .code(2)
        .stderr(contains("it is part 1/2 of one"));
    run(&root, "merge p-1 q-1 q-2 q-3 --force").success();
    assert_eq!(open(&root, "p-1").len(), 6);
    no_partial_is_left(&root);
}

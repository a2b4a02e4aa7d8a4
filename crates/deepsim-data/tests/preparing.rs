//! The command line: prepare, inspect, verify.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::command::{contents, deepsim_data, names, no_partial_is_left, open, prepare, run};
use common::{folder, halve, photo, pipe};
use deepsim_data::Dataset;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

#[test]
fn prepare_inspect_verify_and_again() {
    let root = tempdir().unwrap();
    folder(root.path(), 6);
    prepare(&root, "photos new/set --size 64")
        .success()
        .stdout("done: 6 images in new/set, 73.73 kB\n")
        .stderr(contains("resize short-crop, store raw: about 73.73 kB"));
    let before = contents(&root.path().join("new"));
    prepare(&root, "photos new/set --size 64")
        .success()
        .stdout("up to date: 6 images in new/set\n");
    assert_eq!(contents(&root.path().join("new")), before);
    no_partial_is_left(&root);

    let output = deepsim_data(&root, "inspect new/set --format json")
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json[0]["count"], 6);
    assert_eq!(json[0]["size"], 64);
    assert_eq!(json[0]["prepared"]["store"], "raw");
    assert_eq!(json[0]["prepared"]["source"], "photos");
    run(&root, "inspect photos")
        .success()
        .stdout(contains("6 images"));
    run(&root, "verify new/set")
        .success()
        .stdout("whole: new/set: 6 images\n");
}

#[test]
fn the_same_source_elsewhere_is_the_same_dataset() {
    let digests: Vec<String> = (0..2)
        .map(|_| {
            let root = tempdir().unwrap();
            folder(root.path(), 4);
            let threads = root.path().to_str().unwrap().len() % 3 + 1;
            prepare(&root, &format!("photos set --threads {threads}")).success();
            open(&root, "set").digest()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn another_dataset_is_only_replaced_by_force_and_other_things_never() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    prepare(&root, "photos set --size 32").success();
    let before = contents(&root.path().join("set"));
    prepare(&root, "photos set --size 48")
        .code(2)
        .stderr(contains("stored at 32 px").and(contains("--force")));
    assert_eq!(contents(&root.path().join("set")), before);
    prepare(&root, "photos set --size 48 --force").success();
    assert_eq!(open(&root, "set").stored_size(), 48);
    prepare(&root, "photos set --size 48 --holdout 0.5 --force").success();
    assert!(!root.path().join("set/manifest.json").exists());
    no_partial_is_left(&root);

    // a foreign file in the dataset, a folder that is none, a file
    fs::write(root.path().join("set/notes.txt"), "mine").unwrap();
    prepare(&root, "photos set --force")
        .code(2)
        .stderr(contains("notes.txt"));
    let photos = contents(&root.path().join("photos"));
    prepare(&root, "photos photos --force")
        .code(2)
        .stderr(contains("is no dataset of ours"));
    prepare(&root, "photos photos/00.jpg --force").code(2);
    assert_eq!(contents(&root.path().join("photos")), photos);
    // an empty directory is fine
    fs::create_dir(root.path().join("empty")).unwrap();
    prepare(&root, "photos empty --size 32").success();
}

#[test]
fn a_holdout_splits_by_source_image() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 20);
    // the same photo twice, once as another file: it must not be on both sides
    fs::copy(photos.join("00.jpg"), photos.join("copy of 00.jpg")).unwrap();
    let picture = image::open(photos.join("sub/01.png")).unwrap();
    picture.save(photos.join("same pixels.bmp")).unwrap();
    let parts = |out: &str, seed: &str| {
        prepare(
            &root,
            &format!("photos {out} --size 32 --holdout 0.25 --seed {seed}"),
        )
        .success()
        .stderr(contains("copy of 00.jpg shows the same as 00.jpg"))
        .stdout(contains("2 duplicates left out"));
        let part = |part| names(&open(&root, &format!("{out}/{part}")));
        (part("train"), part("test"))
    };
    let (train, test) = parts("a", "0");
    assert_eq!(train.len() + test.len(), 20);
    assert!((3..=6).contains(&test.len()), "{test:?}");
    assert!(train.iter().all(|name| !test.contains(name)));
    assert_eq!(parts("b", "0"), (train, test.clone()));
    assert_ne!(parts("c", "1").1, test);
    run(&root, "verify a").success();
    run(&root, "inspect a").success().stdout(contains("split"));
    let error = Dataset::open(&root.path().join("a"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("a/train") && error.contains("a/test"),
        "{error}"
    );
    for fraction in ["0", "1", "1.5", "NaN"] {
        prepare(&root, &format!("photos d --holdout {fraction}"))
            .code(2)
            .stderr(contains("strictly between 0 and 1"));
    }
}

/// Whatever else is in the folder: nobody trains on what was held out, or holds out what was trained on.
#[test]
fn with_a_validation_part_names_alone_decide() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 40);
    let options = "--size 16 --holdout 0.25 --validation 0.25";
    let parts = |out: &str| {
        prepare(&root, &format!("photos {out} {options}"))
            .success()
            .stdout(contains(" in train, ").and(contains(" in val, ")));
        run(&root, &format!("verify {out}"))
            .success()
            .stdout(contains(format!("{out}/val")));
        ["train", "val", "test"].map(|part| names(&open(&root, &format!("{out}/{part}"))))
    };
    let whole = parts("whole");
    assert_eq!(whole.iter().map(Vec::len).sum::<usize>(), 40);
    assert!(whole.iter().all(|part| part.len() >= 4), "{whole:?}");
    prepare(&root, &format!("photos whole {options}"))
        .success()
        .stdout(contains("up to date: 40 images"));
    prepare(&root, "photos whole --size 16 --holdout 0.25")
        .code(2)
        .stderr(contains("split differently"));
    run(&root, "inspect whole")
        .success()
        .stdout(contains("val (holdout 0.25, validation 0.25, seed 0)"));

    for gone in ["00.jpg", "02.jpg", "sub/01.png"] {
        fs::remove_file(photos.join(gone)).unwrap();
    }
    photo(60, 60, 99).save(photos.join("new.png")).unwrap();
    for (less, part) in parts("other").iter().zip(&whole) {
        let others = less.iter().filter(|name| name.as_str() != "new.png");
        assert!(others.clone().count() > 0);
        for name in others {
            assert!(part.contains(name), "{name} changed its part");
        }
    }
    // one that is replaced goes with all its parts
    prepare(&root, "photos whole --size 16 --force").success();
    assert!(!root.path().join("whole/val").exists());
    for validation in ["0", "0.8", "NaN"] {
        prepare(
            &root,
            &format!("photos d --holdout 0.25 --validation {validation}"),
        )
        .code(2)
        .stderr(contains("together below 1"));
    }
    prepare(&root, "photos d --validation 0.2")
        .code(2)
        .stderr(contains("--holdout"));
}

#[test]
fn corrupt_photos_are_all_named_or_go_to_quarantine() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 6);
    for name in ["02.jpg", "sub/03.png"] {
        halve(&photos.join(name));
    }
    for budget in ["0", "1"] {
        prepare(&root, &format!("photos set --quarantine {budget}"))
            .code(1)
            .stderr(contains("2 corrupt images"))
            .stderr(contains("  photos/02.jpg: the file is truncated").count(1))
            .stderr(contains("photos/sub/03.png: ").count(1))
            .stderr(contains("--quarantine 2"));
        assert!(!root.path().join("set").exists());
        no_partial_is_left(&root);
    }
    prepare(&root, "photos set --quarantine 2")
        .success()
        .stdout(contains("4 images").and(contains("2 corrupt photos left out")))
        .stderr(contains("corrupt, left out: photos/02.jpg: the file is truncated").count(1));
    run(&root, "inspect set").stdout(contains("left out    sub/03.png: the file is truncated"));
    // whoever asks for none left out does not get this one silently
    prepare(&root, "photos set")
        .code(2)
        .stderr(contains("leaves out 2 corrupt photos"));
    run(&root, "verify photos")
        .code(1)
        .stdout(contains("broken: photos: 02.jpg: the file is truncated"));
}

#[test]
fn damage_is_found_and_named() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    let shard = root.path().join("set/shard-00000.bin");
    let damaged = |change: fn(&mut Vec<u8>)| {
        prepare(&root, "photos set --size 32 --force").success();
        let mut bytes = fs::read(&shard).unwrap();
        change(&mut bytes);
        fs::write(&shard, &bytes).unwrap();
        run(&root, "verify set").code(1)
    };
    // one byte of the second sample
    damaged(|bytes| bytes[3 * 32 * 32 + 5] ^= 1)
        .stdout(contains("set: shard-00000.bin: its bytes do not match"))
        .stdout(contains("set: 02.jpg: its bytes do not match"))
        .stdout(contains("00.jpg").not());
    let data = open(&root, "set");
    assert!(data.image(0).is_ok());
    let message = data.image(1).unwrap_err().to_string();
    assert!(
        message.contains("02.jpg") && message.contains("shard-00000.bin"),
        "{message}"
    );
    drop(data);
    // a cut shard: prepare sees it and makes it anew on demand, open refuses
    damaged(|bytes| bytes.truncate(3 * 32 * 32 * 3))
        .stdout(contains("set: shard-00000.bin: it has 9216 bytes"))
        .stdout(contains("set: sub/03.png: the file is truncated"));
    assert!(Dataset::open(&root.path().join("set")).is_err());
    prepare(&root, "photos set --size 32")
        .code(2)
        .stderr(contains("incomplete"));
    fs::remove_file(&shard).unwrap();
    run(&root, "verify set")
        .code(1)
        .stdout(contains("the file is missing"));
}

#[test]
fn a_full_disk_is_seen_before_anything_is_written() {
    let root = tempdir().unwrap();
    let photos = root.path().join("many");
    fs::create_dir(&photos).unwrap();
    let room = rustix::fs::statvfs(root.path()).unwrap();
    let images = room.f_bavail * room.f_frsize / (3 * 8192 * 8192) + 2;
    for index in 0..images {
        // never decoded: the listing is enough to know
        fs::write(photos.join(format!("{index}.png")), b"").unwrap();
    }
    prepare(&root, "many set --size 8192 --store raw")
        .code(2)
        .stderr(contains("has room for").and(contains("--store jpeg")));
    assert!(!root.path().join("set").exists());
    no_partial_is_left(&root);
}

#[test]
fn settings_out_of_range_are_refused() {
    let root = tempdir().unwrap();
    folder(root.path(), 2);
    prepare(&root, "photos set --size 0")
        .code(2)
        .stderr(contains("1 to 8192"));
    prepare(&root, "photos set --threads 0")
        .code(2)
        .stderr(contains("--threads"));
    prepare(&root, "photos set --threads 9999999")
        .code(2)
        .stderr(contains("--threads must be 1 to 1024"));
    prepare(&root, "photos set --resize stretch").code(2);
    prepare(&root, "photos /").code(2);
    run(&root, "prepare --help")
        .success()
        .stdout(contains("Examples"));
}

/// A pipe that nobody writes to must not be waited for.
#[test]
fn a_pipe_in_a_files_place_is_refused_at_once() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    prepare(&root, "photos set --size 32").success();
    let replace = |name: &str| {
        let path = root.path().join(name);
        let _ = fs::remove_file(&path);
        pipe(&path);
    };
    let refused = |words: &str| {
        let mut command = deepsim_data(&root, words);
        command.timeout(std::time::Duration::from_secs(60));
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{words:?}: {told}"
        );
        assert!(
            told.contains("pipe") || told.contains("regular file"),
            "{words:?}: {told}"
        );
    };
    replace("source");
    refused("prepare source out");
    replace("set/shard-00000.bin");
    refused("inspect set");
    refused("verify set");
    replace("set/manifest.json");
    refused("inspect set");
    refused("verify set");
}

/// A name with a line end in it must not look like a line of the program's.
#[test]
fn names_stay_on_their_line() {
    let root = tempdir().unwrap();
    let photos = folder(root.path(), 2);
    fs::copy(photos.join("00.jpg"), photos.join("x\nerror: forged.jpg")).unwrap();
    fs::write(photos.join("y\nerror: damaged.png"), "\u{89}PNG\r\n").unwrap();
    let prepared = prepare(&root, "photos set --size 32 --quarantine 1").success();
    let told = prepared.get_output().stderr.clone();
    let shown = deepsim_data(&root, "inspect set").output().unwrap().stdout;
    for text in [told, shown] {
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\\nerror: "), "{text}");
        assert!(!text.contains("\nerror: "), "{text}");
    }
}

#[test]
fn jpeg_can_be_chosen() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    prepare(&root, "photos set --store jpeg").success();
    run(&root, "verify set").success();
}

#[test]
fn a_signal_ends_the_work_within_seconds_and_leaves_nothing_behind() {
    let root = tempdir().unwrap();
    let photos = root.path().join("photos");
    fs::create_dir(&photos).unwrap();
    photo(1500, 1500, 1).save(photos.join("0.png")).unwrap();
    for index in 1..400 {
        fs::hard_link(photos.join("0.png"), photos.join(format!("{index}.png"))).unwrap();
    }
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129), ("-USR1", 138)] {
        // a test run under nohup hands its children down that hangups are ignored
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        if signal == "-HUP"
            && !ignored.is_some_and(|mask| {
                mask.trim()
                    .ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e'])
            })
        {
            continue;
        }
        let program = assert_cmd::cargo::cargo_bin("deepsim-data");
        let mut child = std::process::Command::new(program)
            .args(["prepare", "photos", "set"])
            .current_dir(&root)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let started = std::time::Instant::now();
        let working = || {
            let items = fs::read_dir(&root).unwrap().flatten();
            items
                .into_iter()
                .any(|item| item.file_name().to_string_lossy().contains(".partial-"))
        };
        while !working() {
            assert!(started.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let number = child.id().to_string();
        let sent = std::time::Instant::now();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &number])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(sent.elapsed().as_secs() < 10, "{:?}", sent.elapsed());
        assert!(!root.path().join("set").exists());
        no_partial_is_left(&root);
    }
}

/// A command line run by a shell, for what only a shell can set up.
fn shell(root: &tempfile::TempDir, line: &str) -> assert_cmd::assert::Assert {
    let program = assert_cmd::cargo::cargo_bin("deepsim-data");
    assert_cmd::Command::new("bash")
        .current_dir(root)
        .env("DATA", program)
        .args(["-c", line])
        .assert()
}

#[test]
fn exit_codes_tell_refused_input_from_work_that_failed() {
    let root = tempdir().unwrap();
    folder(root.path(), 4);
    prepare(&root, "photos set --size 32").success();
    // a stdout that takes no more; each word of the reason once
    for command in [
        "inspect set",
        "inspect set --format json",
        "verify set",
        "--help",
        "prepare --help",
        "--version",
    ] {
        shell(&root, &format!("\"$DATA\" {command} > /dev/full"))
            .code(1)
            .stderr(contains("No space left on device").count(1));
        // a reader that has seen enough
        shell(
            &root,
            &format!("\"$DATA\" {command} | true; exit ${{PIPESTATUS[0]}}"),
        )
        .code(0);
    }
    shell(&root, "\"$DATA\" prepare photos full --size 32 > /dev/full").code(1);
    // the disk refuses in mid-work
    shell(
        &root,
        "trap '' XFSZ; ulimit -f 20; \"$DATA\" prepare photos big --size 256",
    )
    .code(1)
    .stderr(contains("cannot write").and(contains("File too large").count(1)));
    assert!(!root.path().join("big").exists());
    no_partial_is_left(&root);
    // refused before the work begins
    for line in [
        "\"$DATA\" prepare photos set --size 48",
        "\"$DATA\" prepare nowhere out",
        "\"$DATA\" inspect nowhere",
        "\"$DATA\" verify nowhere",
        "\"$DATA\" inspect photos/00.jpg",
        "\"$DATA\" prepare photos out --orientation up",
    ] {
        shell(&root, line).code(2);
    }
    // something in the way of OUT is named once
    shell(&root, "\"$DATA\" prepare photos photos/00.jpg/set")
        .code(2)
        .stderr(contains("(os error").count(1));
}

#[test]
fn photos_that_may_only_be_measured_on_are_prepared_beside_themselves_alone() {
    let root = tempdir().unwrap();
    let place = root.path().join("data/labelled");
    fs::create_dir_all(&place).unwrap();
    folder(&place, 2);
    let source = "data/labelled/photos";
    prepare(&root, &format!("{source} mine --size 32"))
        .code(2)
        .stderr(contains("only be measured on"));
    assert!(!root.path().join("mine").exists());
    prepare(&root, &format!("{source} data/labelled/test --size 32")).success();
}

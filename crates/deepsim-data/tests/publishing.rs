//! Publishing a dataset never removes what it did not agree to replace.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::command::{contents, no_partial_is_left};
use common::folder;
use deepsim_data::prepare::Existing;
use deepsim_data::{DataError, Dataset, Event, Flow, Outcome, Prepare, prepare};
use tempfile::{TempDir, tempdir};

fn request(root: &Path, size: u32, existing: Existing) -> Prepare {
    Prepare {
        existing,
        ..Prepare::new(root.join("photos"), root.join("set"), size)
    }
}

/// Prepares, and calls `meanwhile` once before the dataset takes its place.
fn interfered(
    root: &TempDir,
    existing: Existing,
    meanwhile: impl Fn(&Path),
) -> Result<Outcome, DataError> {
    let request = request(root.path(), 16, existing);
    let out = request.out.clone();
    prepare(&request, &mut |event| {
        if event == Event::Publishing {
            meanwhile(&out);
        }
        Flow::Continue
    })
}

fn appeared(result: &Result<Outcome, DataError>) -> bool {
    matches!(result, Err(DataError::OutputAppeared { .. }))
}

#[test]
fn what_appears_at_the_output_meanwhile_stays() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    let out = root.path().join("set");
    let things: [fn(&Path); 4] = [
        |out| {
            fs::create_dir(out).unwrap();
            fs::write(out.join("thesis.txt"), "mine").unwrap();
        },
        |out| fs::write(out, "mine").unwrap(),
        |out| std::os::unix::fs::symlink("photos", out).unwrap(),
        |out| std::os::unix::fs::symlink("nowhere", out).unwrap(),
    ];
    for existing in [Existing::Keep, Existing::Replace] {
        for thing in things {
            let result = interfered(&root, existing, thing);
            assert!(appeared(&result), "{result:?}");
            let before = contents(root.path());
            assert!(fs::symlink_metadata(&out).is_ok());
            no_partial_is_left(&root);
            // and is as it was put there
            match fs::symlink_metadata(&out).unwrap() {
                found if found.is_dir() => {
                    assert_eq!(fs::read_to_string(out.join("thesis.txt")).unwrap(), "mine");
                    fs::remove_dir_all(&out).unwrap();
                }
                _ => fs::remove_file(&out).unwrap(),
            }
            assert!(
                before
                    .iter()
                    .any(|(name, _)| name.ends_with("photos/00.jpg"))
            );
        }
    }
    // an empty folder is as good as none
    interfered(&root, Existing::Keep, |out| fs::create_dir(out).unwrap()).unwrap();
    assert_eq!(Dataset::open(&out).unwrap().len(), 3);
}

#[test]
fn only_the_dataset_that_was_agreed_on_is_replaced() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    let out = root.path().join("set");
    let old = || {
        let _ = fs::remove_dir_all(&out);
        prepare(&request(root.path(), 24, Existing::Keep), &mut |_| {
            Flow::Continue
        })
        .unwrap();
    };
    let changes: [fn(&Path); 4] = [
        // a file in it
        |out| fs::write(out.join("notes.txt"), "mine").unwrap(),
        // another dataset in its place
        |out| {
            let (photos, aside) = (out.with_file_name("photos"), out.with_file_name("aside"));
            fs::rename(out, aside).unwrap();
            let other = Prepare {
                source: photos,
                ..request(out.parent().unwrap(), 20, Existing::Keep)
            };
            prepare(&other, &mut |_| Flow::Continue).unwrap();
        },
        // another manifest
        |out| {
            let file = out.join("manifest.json");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("photos", "others")).unwrap();
        },
        // something else under its name
        |out| {
            fs::rename(out, out.with_file_name("moved")).unwrap();
            fs::create_dir(out).unwrap();
            fs::write(out.join("manifest.json"), "mine").unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        old();
        let after = std::cell::RefCell::new(Vec::new());
        let result = interfered(&root, Existing::Replace, |out| {
            change(out);
            *after.borrow_mut() = contents(out);
        });
        assert!(appeared(&result), "{number}: {result:?}");
        assert_eq!(contents(&out), after.into_inner(), "{number}");
        no_partial_is_left(&root);
    }
    // undisturbed it is replaced and nothing else is left
    old();
    interfered(&root, Existing::Replace, |_| {}).unwrap();
    assert_eq!(Dataset::open(&out).unwrap().stored_size(), 16);
    no_partial_is_left(&root);
    // gone meanwhile: the place is free
    old();
    interfered(&root, Existing::Replace, |out| {
        fs::remove_dir_all(out).unwrap()
    })
    .unwrap();
    assert_eq!(Dataset::open(&out).unwrap().stored_size(), 16);
}

#[test]
fn two_preparations_of_one_output_both_end_with_a_whole_dataset() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    let out = root.path().join("set");
    let again = |size| {
        let request = request(root.path(), size, Existing::Keep);
        move |_: &Path| {
            prepare(&request, &mut |_| Flow::Continue).unwrap();
        }
    };
    // the same dataset: the slower one finds it there
    let result = interfered(&root, Existing::Keep, again(16));
    assert!(
        matches!(result, Ok(Outcome::UpToDate { images: 3, .. })),
        "{result:?}"
    );
    fs::remove_dir_all(&out).unwrap();
    // another one: it stays
    let result = interfered(&root, Existing::Keep, again(20));
    assert!(appeared(&result), "{result:?}");
    assert_eq!(Dataset::open(&out).unwrap().stored_size(), 20);
    no_partial_is_left(&root);
}

#[test]
fn only_what_prepare_left_behind_is_called_left_over() {
    let root = tempdir().unwrap();
    folder(root.path(), 3);
    let mine: PathBuf = root.path().join("set.partial-results");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("table.csv"), "mine").unwrap();
    fs::write(root.path().join("set.old-notes"), "mine").unwrap();
    let left = root.path().join("set.partial-a1b2c3");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("shard-00000.bin"), "half").unwrap();
    let mut named = Vec::new();
    prepare(&request(root.path(), 16, Existing::Keep), &mut |event| {
        if let Event::Leftover(path) = event {
            named.push(path);
        }
        Flow::Continue
    })
    .unwrap();
    let named: Vec<_> = named.iter().filter_map(|path| path.file_name()).collect();
    assert_eq!(named, ["set.partial-a1b2c3"]);
    assert!(left.exists() && mine.join("table.csv").exists());
}

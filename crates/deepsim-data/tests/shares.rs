//! Of several processes that train together each reads its own part of the images. What they read is counted by the system,
//! in a process for each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

mod common;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::folder;
use deepsim_data::{
    Augment, BadImages, BatchSpec, Dataset, Flow, Loader, Mirror, Place, Prepare, Store, prepare,
};
use tempfile::tempdir;

const TASK: &str = "DEEPSIM_TEST_SHARE";
const IMAGES: u32 = 32;
const SIDE: u32 = 128;
const BATCH: usize = 16;
/// The loader works three batches ahead of them, at most.
const STEPS: u64 = 60;

/// What all reads of this process have brought so far; none where the system does not count.
fn bytes_read() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    count.trim().parse().ok()
}

/// Takes its share of some batches, and says what was read for them.
#[test]
#[ignore = "it is the process that the test beside it starts"]
fn child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let mut words = task.splitn(3, ' ');
    let mut number = || words.next().unwrap().parse::<usize>().unwrap();
    let share = number()..number();
    let data = Arc::new(Dataset::open(Path::new(words.next().unwrap())).unwrap());
    let spec = BatchSpec {
        batch_size: BATCH,
        augment: Augment {
            crop: 64,
            mirror: Mirror::Random,
            place: Place::Random,
            scale: None,
        },
        seed: 5,
    };
    let Some(before) = bytes_read() else {
        println!("child: not counted");
        return;
    };
    let images = share.len();
    let none = BTreeSet::new();
    let mut loader = Loader::of_share(data, spec, share, 0, BadImages::Fail, &none).unwrap();
    for step in 0..STEPS {
        let batch = loader.next_batch().unwrap();
        assert_eq!((batch.step, batch.indices.len()), (step, images));
        loader.recycle(batch);
    }
    println!("child: {}", bytes_read().unwrap() - before);
}

/// What a process reads that has these places of each batch.
fn read_by(share: Range<usize>, data: &Path) -> Option<u64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(
            TASK,
            format!("{} {} {}", share.start, share.end, data.display()),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let (_, said) = text.split_once("child: ").unwrap();
    said.lines().next().unwrap().trim().parse().ok()
}

#[test]
fn each_of_several_processes_reads_its_part_of_the_bytes_and_little_more() {
    let root = tempdir().unwrap();
    let data = root.path().join("set");
    let photos = folder(root.path(), IMAGES);
    let request = Prepare {
        store: Some(Store::Raw),
        ..Prepare::new(&photos, &data, SIDE)
    };
    prepare(&request, &mut |_| Flow::Continue).unwrap();
    let Some(whole) = read_by(0..BATCH, &data) else {
        eprintln!("skipped: the system does not count what a process reads");
        return;
    };
    // It does count the images.
    let image = u64::from(3 * SIDE * SIDE);
    assert!(whole >= STEPS * BATCH as u64 * image, "{whole}");
    for processes in [2, 4] {
        let places = BATCH / processes;
        for rank in 0..processes {
            let own = read_by(rank * places..(rank + 1) * places, &data).unwrap();
            let part = own as f64 / whole as f64 * processes as f64;
            assert!(part <= 1.1, "rank {rank} of {processes}: {part}");
            assert!(part >= 0.9, "rank {rank} of {processes}: {part}");
        }
    }
}

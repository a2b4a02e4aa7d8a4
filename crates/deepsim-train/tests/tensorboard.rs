//! Event files are read back by TensorBoard itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_train::observe::tensorboard::EventWriter;
use serde_json::{Value, json};

const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=True)
a.Reload()
print(json.dumps({
    "version": a.file_version,
    "scalars": {t: [[e.step, e.wall_time, repr(e.value)] for e in a.Scalars(t)] for t in a.Tags()["scalars"]},
    "images": {t: [[e.step, e.wall_time, e.width, e.height, e.encoded_image_string.hex()] for e in a.Images(t)]
               for t in a.Tags()["images"]},
}))
"#;

fn read_back(dir: &Path) -> Value {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party/py");
    let output = Command::new("python3")
        .env("PYTHONPATH", packages)
        .args(["-c", READER])
        .arg(dir)
        .output()
        .expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn event_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([x as u8 * 30, y as u8 * 40, 128])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn tensorboard_reads_the_same_scalars_and_images() {
    let run = tempfile::tempdir().unwrap();
    let dir = run.path().join("tensorboard");
    let picture = png(6, 4);
    let mut writer = EventWriter::create(&dir).unwrap();
    for step in [0, 10, 5_000_000_000] {
        let value = step as f64 / 8.0;
        writer
            .scalars(
                step,
                1e9 + value,
                &[("loss/feat", value), ("lr", -value), ("zero", 0.0)],
            )
            .unwrap();
    }
    writer
        .image_png(10, 1e9 + 0.5, "samples", 6, 4, &picture)
        .unwrap();
    writer.flush().unwrap();

    let read = read_back(&dir);
    assert_eq!(read["version"], 2.0);
    let scalars = |factor: f64| {
        json!([
            [0, 1e9, format!("{:?}", 0.0 * factor)],
            [10, 1e9 + 1.25, format!("{:?}", 1.25 * factor)],
            [
                5_000_000_000u64,
                1e9 + 625e6,
                format!("{:?}", 625e6 * factor)
            ],
        ])
    };
    assert_eq!(read["scalars"]["loss/feat"], scalars(1.0));
    assert_eq!(read["scalars"]["lr"], scalars(-1.0));
    assert_eq!(read["scalars"]["zero"].as_array().unwrap().len(), 3);
    assert_eq!(read["scalars"]["zero"][2][2], "0.0");
    assert_eq!(
        read["images"],
        json!({"samples": [[10, 1e9 + 0.5, 6, 4, hex(&picture)]]})
    );
}

#[test]
fn a_resumed_run_replaces_the_steps_after_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut first = EventWriter::create(dir).unwrap();
    for step in 1..=6 {
        first
            .scalars(step, step as f64, &[("loss", step as f64)])
            .unwrap();
        // A tag that the resumed run does not write again before TensorBoard looks.
        first.scalars(step, step as f64, &[("rare", 1.0)]).unwrap();
    }
    drop(first);
    // The run was killed while writing its last record.
    let old = event_files(dir).remove(0);
    let bytes = fs::read(&old).unwrap();
    fs::write(&old, &bytes[..bytes.len() - 5]).unwrap();

    // Checkpoint of step 4; a resume in the same second gets a name of its own, sorted last.
    let mut second = EventWriter::resume(dir, 5, 100.0).unwrap();
    second.scalars(5, 105.0, &[("loss", 50.0)]).unwrap();
    second.flush().unwrap();
    let files = event_files(dir);
    assert_eq!(files.len(), 2);
    assert_eq!(files[0], old);

    let read = read_back(dir);
    let steps = |tag: &str| -> Vec<(u64, String)> {
        let points = read["scalars"][tag].as_array().unwrap();
        points
            .iter()
            .map(|p| (p[0].as_u64().unwrap(), p[2].as_str().unwrap().to_owned()))
            .collect()
    };
    let point = |step, value: &str| (step, value.to_owned());
    assert_eq!(
        steps("loss"),
        [
            point(1, "1.0"),
            point(2, "2.0"),
            point(3, "3.0"),
            point(4, "4.0"),
            point(5, "50.0"),
        ]
    );
    assert_eq!(
        steps("rare").iter().map(|(s, _)| *s).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
}

#[test]
fn impossible_steps_and_folders_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path()).unwrap();
    assert!(writer.scalars(u64::MAX, 0.0, &[("x", 1.0)]).is_err());
    assert!(writer.image_png(0, 0.0, "x", u32::MAX, 1, &[]).is_err());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(EventWriter::create(&file).is_err());
}

//! Files of every form, held against Pillow: equal, or refused by name; never otherwise. And what
//! decoding them takes.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{decoded, distance, mean_distance, python, raw};
use deepsim_data::ImageFault;
use tempfile::tempdir;

const JPEGS: &str = include_str!("matrix/jpeg.py");
const OTHERS: &str = concat!(
    include_str!("matrix/others.py"),
    include_str!("matrix/damage.py")
);

/// A line of a matrix's index.
struct Case {
    name: String,
    width: u32,
    height: u32,
    verdict: String,
}

fn cases(folder: &Path) -> Vec<Case> {
    let index = fs::read_to_string(folder.join("index.txt")).unwrap();
    let cases = index.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let &[name, width, height, verdict] = words.as_slice() else {
            panic!("{line}")
        };
        Case {
            name: name.to_owned(),
            width: width.parse().unwrap(),
            height: height.parse().unwrap(),
            verdict: verdict.to_owned(),
        }
    });
    cases.collect()
}

/// libjpeg-turbo's own encoder, which is built with its decoder: `target/…/build/turbojpeg-sys-…`.
fn cjpeg() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let builds = program.ancestors().nth(2).unwrap().join("build");
    let found = fs::read_dir(&builds).unwrap().flatten().find_map(|build| {
        let name = build.file_name().into_string().unwrap();
        let cjpeg = build.path().join("out/bin/cjpeg");
        (name.starts_with("turbojpeg-sys-") && cjpeg.is_file()).then_some(cjpeg)
    });
    found.unwrap_or_else(|| panic!("no cjpeg below {}", builds.display()))
}

/// `many` is `all` or, of four samplings and one size, `few`.
fn jpegs(folder: &Path, many: &str) -> Vec<Case> {
    python(JPEGS, &[&cjpeg(), folder, Path::new(many)]);
    cases(folder)
}

#[test]
fn jpegs_of_every_sampling_scan_script_and_restart_setting_have_pillows_very_pixels() {
    let root = tempdir().unwrap();
    let cases = jpegs(root.path(), "all");
    // Pillow has its own word on colours of which Adobe's marker says what does not exist, and on
    // coding that no camera has; here they may be refused.
    let odd = ["cmyk-adobe-1", "rgb-adobe-2", "arithmetic", "lossless"];
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for case in &cases {
        let path = root.path().join(&case.name);
        match decoded(&path) {
            Ok(found) => {
                let expected = path.with_file_name(format!("{}.rgb", case.name));
                if case.verdict != "read" || found != raw(&expected, case.width, case.height) {
                    wrong.push(case.name.as_str());
                }
            }
            Err(_) if case.verdict == "refused" => {}
            Err(_) if odd.iter().any(|odd| case.name == format!("{odd}.jpg")) => {}
            Err(fault) => refused.push(format!("{}: {fault}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of them: {wrong:?}", wrong.len());
    assert!(refused.is_empty(), "{} of them: {refused:?}", refused.len());
    assert!(cases.len() > 1100, "{} cases", cases.len());
}

/// Cuts at twelve places and at every marker, with and without an end-of-image marker behind.
#[test]
fn a_cut_jpeg_is_refused_with_and_without_an_end_marker() {
    let root = tempdir().unwrap();
    let (mut cuts, mut taken) = (0, Vec::new());
    let bases = [
        "2x2_one_none_51x37",
        "1x1_one_3_51x37",
        "2x1_each_none_51x37",
        "2x2_y-cc_row_51x37",
        "1x2_chroma-first_7_51x37",
        "2x2_spectral_none_51x37",
        "2x2_progressive_none_51x37",
        "1x1_progressive_3_51x37",
        "default-progressive",
        "optimised",
        "grey",
        "cmyk-1-True",
        "ycck-2-False",
    ];
    jpegs(root.path(), "few");
    for base in bases {
        let whole = fs::read(root.path().join(format!("{base}.jpg"))).unwrap();
        let picture = decoded(&root.path().join(format!("{base}.jpg"))).unwrap();
        let twelve = (1..=12).map(|part| whole.len() * part / 13);
        let markers = (2..whole.len() - 1).filter(|at| whole[*at] == 0xFF && whole[at + 1] != 0);
        let ends = whole.len() - 12..whole.len();
        let path = root.path().join("cut.jpg");
        for cut in twelve.chain(markers).chain(ends) {
            for end in [&[][..], &[0xFF, 0xD9]] {
                fs::write(&path, [&whole[..cut], end].concat()).unwrap();
                cuts += 1;
                match decoded(&path) {
                    Err(fault) => assert!(!fault.to_string().is_empty()),
                    // The last bits of the last block may be padding: nothing is missing then.
                    Ok(found) if found == picture && cut + 4 >= whole.len() => {}
                    Ok(_) => taken.push(format!("{base} at {cut} of {}, {end:?}", whole.len())),
                }
            }
        }
    }
    assert!(taken.is_empty(), "{} of {cuts}: {taken:?}", taken.len());
    assert!(cuts > 1000, "{cuts}");
}

#[test]
fn a_jpeg_that_lost_a_restart_marker_is_refused() {
    let root = tempdir().unwrap();
    jpegs(root.path(), "few");
    let (mut tried, mut taken) = (0, Vec::new());
    for base in [
        "2x2_one_row_51x37",
        "1x1_one_3_51x37",
        "2x1_each_7_51x37",
        "1x2_y-cc_3_51x37",
        "2x2_progressive_3_51x37",
        "grey-progressive",
    ] {
        let whole = fs::read(root.path().join(format!("{base}.jpg"))).unwrap();
        let markers: Vec<usize> = (2..whole.len() - 1)
            .filter(|at| whole[*at] == 0xFF && matches!(whole[at + 1], 0xD0..=0xD7))
            .collect();
        let path = root.path().join("lost.jpg");
        for (number, at) in markers.iter().enumerate() {
            let next = markers.get(number + 1).copied();
            // The marker, and the marker with what it begins.
            for end in [Some(at + 2), next].into_iter().flatten() {
                fs::write(&path, [&whole[..*at], &whole[end..]].concat()).unwrap();
                tried += 1;
                if decoded(&path).is_ok() {
                    taken.push(format!("{base}: {at}..{end}"));
                }
            }
        }
    }
    assert!(taken.is_empty(), "{} of {tried}: {taken:?}", taken.len());
    assert!(tried > 100, "{tried}");
}

#[test]
fn a_progressive_jpeg_without_its_last_scans_is_refused_by_name() {
    let root = tempdir().unwrap();
    jpegs(root.path(), "few");
    let whole = fs::read(root.path().join("default-progressive.jpg")).unwrap();
    let last = whole.windows(2).rposition(|m| m == [0xFF, 0xDA]).unwrap();
    let path = root.path().join("early.jpg");
    fs::write(&path, [&whole[..last], &[0xFF, 0xD9]].concat()).unwrap();
    let refusal = decoded(&path).unwrap_err().to_string();
    assert!(refusal.contains("scans are missing"), "{refusal}");
}

#[test]
fn every_other_form_has_pillows_pixels_or_is_refused() {
    let root = tempdir().unwrap();
    python(OTHERS, &[root.path()]);
    let cases = cases(root.path());
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for case in &cases {
        let path = root.path().join(&case.name);
        let found = match decoded(&path) {
            Ok(found) => found,
            Err(_) if ["either", "refused"].contains(&case.verdict.as_str()) => continue,
            Err(fault) => {
                refused.push(format!("{}: {fault}", case.name));
                continue;
            }
        };
        if case.verdict == "refused" {
            wrong.push(format!("{}: read", case.name));
            continue;
        }
        let expected = path.with_file_name(format!("{}.rgb", case.name));
        let expected = raw(&expected, case.width, case.height);
        if found.dimensions() != expected.dimensions() {
            wrong.push(format!("{}: {:?}", case.name, found.dimensions()));
            continue;
        }
        let (off, mean) = (
            distance(&found, &expected),
            mean_distance(&found, &expected),
        );
        let allowed = match case.verdict.as_str() {
            "close" => (3, 0.5),
            _ => (0, 0.0),
        };
        if off > allowed.0 || mean > allowed.1 {
            wrong.push(format!(
                "{}: {off} at most, {mean:.3} on average",
                case.name
            ));
        }
    }
    // Cut anywhere, none is read with other pixels.
    for case in cases.iter().filter(|case| case.width > 30).step_by(5) {
        let path = root.path().join(&case.name);
        let Ok(picture) = decoded(&path) else {
            continue;
        };
        let whole = fs::read(&path).unwrap();
        for part in 1..=12 {
            let cut = root.path().join("cut");
            fs::write(&cut, &whole[..whole.len() * part / 13]).unwrap();
            if decoded(&cut).is_ok_and(|found| found != picture) {
                wrong.push(format!("{} cut to {part}/13", case.name));
            }
        }
    }
    let report = format!("wrong: {wrong:#?}\nrefused: {refused:#?}");
    assert!(wrong.is_empty() && refused.is_empty(), "{report}");
    assert!(cases.len() > 1200, "{} cases", cases.len());
    // What no decoder here reads right is called by its name.
    for (name, words) in [
        ("rgb-8-planes-tiles-le-usual-37x29.tif", "planes in tiles"),
        ("reversed-1.tif", "bits in reversed order"),
        ("palette.tif", "a palette"),
        ("float.tif", "floating-point"),
        ("five.tif", "2 samples beyond its colours"),
        ("odd-most.pgm", "largest value is 40000"),
    ] {
        let refusal = decoded(&root.path().join(name)).unwrap_err().to_string();
        assert!(refusal.contains(words), "{name}: {refusal}");
    }
}

/// Makes ten images of 36 million pixels that decode to a multiple of their bytes: RGBA PNGs of
/// sixteen bits (288 MB each) and progressive JPEGs (324 MB each).
const BOMBS: &str = r#"
import sys, struct, zlib
from PIL import Image
out, side = sys.argv[1], 6000
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
packer = zlib.compressobj(1)
row = bytes(1 + 8 * side)
data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0))
png += chunk(b"IDAT", data) + chunk(b"IEND", b"")
Image.new("RGB", (side, side), (90, 160, 30)).save(f"{out}/0.jpg", progressive=True, subsampling=0)
jpeg = open(f"{out}/0.jpg", "rb").read()
for number in range(5):
    # Behind the end, where nobody looks: so that no two files are the same.
    open(f"{out}/{number}.png", "wb").write(png + bytes([number]))
    open(f"{out}/{number}.jpg", "wb").write(jpeg + bytes([number]))
"#;

/// Runs a program and prints the most memory that it held, in KiB.
const PEAK: &str = r#"
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"#;

#[test]
fn eight_threads_together_stay_within_the_memory_budget() {
    let root = tempdir().unwrap();
    let photos = root.path().join("photos");
    fs::create_dir(&photos).unwrap();
    python(BOMBS, &[&photos]);
    let program = assert_cmd::cargo::cargo_bin("deepsim-data");
    let output = Command::new("python3")
        .args(["-c", PEAK])
        .arg(program)
        .args(["prepare", "photos", "out", "--size", "64"])
        .current_dir(root.path())
        .env("RAYON_NUM_THREADS", "8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let peak: u64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    let peak = peak * 1024;
    // 1.6 GB for decoding; the program itself, files and squares beside it.
    assert!(peak < 1_800_000_000, "{peak} bytes");
    assert!(peak > 600_000_000, "{peak} bytes: not decoded at once");
}

#[test]
fn an_image_that_alone_exceeds_the_budget_is_refused_by_its_header() {
    let root = tempdir().unwrap();
    jpegs(root.path(), "few");
    let path = root.path().join("1x1_progressive_none_51x37.jpg");
    let mut bytes = fs::read(&path).unwrap();
    let frame = bytes.windows(2).position(|m| m == [0xFF, 0xC2]).unwrap();
    let side = 14_000_u16.to_be_bytes();
    bytes[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    fs::write(&path, &bytes).unwrap();
    match decoded(&path) {
        Err(ImageFault::TooMuchMemory { bytes }) => assert!(bytes > 1_700_000_000, "{bytes}"),
        other => panic!("{other:?}"),
    }
    let refusal = decoded(&path).unwrap_err().to_string();
    assert!(
        refusal.contains("1.8 GB") && refusal.contains("baseline"),
        "{refusal}"
    );
}

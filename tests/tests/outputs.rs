//! Files that results are written to: nothing is replaced but this program's earlier results.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

use deepsim_tests::files::pipe;
use deepsim_tests::lab::Lab;
use deepsim_tests::process::{program, python, run};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use tch::{Device, Kind, Tensor};

/// Commands with a file of the user's choice behind their last word.
const NAMED: [(&str, &str); 3] = [
    ("compare run --images 1 --out", "no image of this program"),
    ("ask run other --images 1 --out", "no page of this program"),
    (
        "forward tiny.toml --run run --net encoder --input x.safetensors --output",
        "no file of the tensor `y` of this program",
    ),
];

fn tensors(path: &Path, name: &str, shape: &[i64]) {
    let x = Tensor::rand(shape, (Kind::Float, Device::Cpu)) * 255.0;
    Tensor::write_safetensors(&[(name, x)], path).unwrap();
}

fn lab() -> Lab {
    let lab = Lab::trained(1);
    lab.train_into("other", "--steps 1").exits(0);
    tensors(&lab.at("x.safetensors"), "x", &[1, 3, 64, 64]);
    lab
}

#[test]
fn a_result_replaces_nothing_but_an_earlier_one_of_its_kind() {
    let lab = lab();
    fs::write(lab.at("page.html"), "<!DOCTYPE html><title>mine</title>").unwrap();
    let theirs = [
        "tiny.toml",
        "run/metrics.jsonl",
        "train/01.png",
        "page.html",
        "x.safetensors",
    ];
    for (command, kind) in NAMED {
        for name in theirs {
            let before = fs::read(lab.at(name)).unwrap();
            let (_, option) = command.rsplit_once(' ').unwrap();
            let words = [option, name, "is there already, and", kind];
            lab.eval(&format!("{command} {name}")).refuses(&words);
            assert!(fs::read(lab.at(name)).unwrap() == before, "{name}");
        }
        // Its own is made again.
        for _ in 0..2 {
            lab.eval(&format!("{command} result")).exits(0);
        }
        fs::remove_file(lab.at("result")).unwrap();
    }
}

#[test]
fn no_link_device_or_pipe_is_replaced() {
    let lab = lab();
    fs::write(lab.at("theirs"), "theirs").unwrap();
    symlink("theirs", lab.at("link")).unwrap();
    symlink("nowhere", lab.at("dangling")).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    let node = |name: &str, kind, device| mknodat(CWD, lab.at(name), kind, mode, device);
    node("pipe", FileType::Fifo, 0).unwrap();
    let mut there = vec!["link", "dangling", "pipe", "run"];
    // Only root makes devices; /dev/null is one that nobody can miss.
    if node("device", FileType::CharacterDevice, makedev(1, 3)).is_ok() {
        there.push("device");
    }
    for (command, _) in NAMED {
        for name in &there {
            lab.eval(&format!("{command} {name}"))
                .refuses(&[name, "choose another name"]);
        }
    }
    // Files that the program names itself.
    fs::create_dir(lab.at("tables")).unwrap();
    symlink("../theirs", lab.at("tables/table1.txt")).unwrap();
    lab.eval("table1 --out tables")
        .says(&["tables/table1.txt is a link"]);
    assert_eq!(fs::read_to_string(lab.at("theirs")).unwrap(), "theirs");
    assert!(lab.at("link").is_symlink() && lab.at("dangling").is_symlink());
    let kind = |name: &str| fs::symlink_metadata(lab.at(name)).unwrap().file_type();
    assert!(kind("pipe").is_fifo());
    if there.contains(&"device") {
        assert!(kind("device").is_char_device());
    }
}

#[test]
fn decoded_images_do_not_replace_images_of_their_names() {
    let lab = lab();
    tensors(&lab.at("features.safetensors"), "01", &[192, 3, 3]);
    let decode = "decode features.safetensors --run run --out";
    let out = |folder: &str| lab.eval(&format!("{decode} {folder}"));
    let before = fs::read(lab.at("train/01.png")).unwrap();
    out("train").refuses(&["train/01.png", "is there already"]);
    assert!(fs::read(lab.at("train/01.png")).unwrap() == before);
    for _ in 0..2 {
        out("made").exits(0);
    }
    image::open(lab.at("made/01.png")).unwrap();
}

/// A laboratory with `sd.pth`, a state dict of one tensor.
fn with_state_dict() -> Lab {
    let lab = Lab::new();
    let dict = "import torch, sys; torch.save({'a.weight': torch.zeros(3)}, sys.argv[1])";
    run(python(dict).arg(lab.at("sd.pth"))).exits(0);
    lab
}

/// The command's earlier place.
#[test]
fn the_earlier_name_of_the_importer_imports_all_the_same() {
    let lab = with_state_dict();
    let import =
        |program: &str| run(&mut lab.command(program, "import torchvision sd.pth w.safetensors"));
    let ran = import("deepsim-nets").exits(0);
    assert_eq!(ran.stdout, "a.weight\t3\n");
    assert!(
        ran.stderr.contains("`deepsim-weights import` now"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("wrote w.safetensors"), "{}", ran.stderr);
    import("deepsim-weights").says(&["unchanged"]).exits(0);
    let ran = run(program("deepsim-nets").args(["import", "torchvision", "nothing", "out"]));
    ran.exits(2).says(&["nothing"]);
}

#[test]
fn imported_weights_replace_no_other_file_beside_them() {
    let lab = with_state_dict();
    let import = |out: &str, rest: &str| {
        let arguments = format!("import torchvision sd.pth {out} {rest}");
        run(&mut lab.command("deepsim-weights", &arguments))
    };
    let beside = lab.at("w.safetensors.blake3");
    fs::write(&beside, "my own notes").unwrap();
    import("w.safetensors", "").refuses(&["w.safetensors.blake3", "--force"]);
    assert_eq!(fs::read_to_string(&beside).unwrap(), "my own notes");
    assert!(!lab.at("w.safetensors").exists());
    import("w.safetensors", "--force").exits(0);
    import("w.safetensors", "").exits(0);
    fs::create_dir(lab.at("v.safetensors.blake3")).unwrap();
    import("v.safetensors", "").says(&["v.safetensors.blake3"]);
    pipe(&lab.at("pipe"));
    for rest in ["", "--force"] {
        let ran = import("pipe", rest).says(&["pipe"]);
        assert_ne!(ran.code, Some(0));
    }
    assert!(
        fs::symlink_metadata(lab.at("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

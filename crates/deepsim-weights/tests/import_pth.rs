//! State dicts as PyTorch itself writes them: every value the same, every other file refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use deepsim_weights::{Existing, ImportKind, Imported, import_file};

/// Runs `tests/python/pth.py`, which writes the files.
fn files() -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("python3")
        .arg(root.join("tests/python/pth.py"))
        .arg(folder.path())
        .env("PYTHONPATH", root.join("third_party/py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 must be on the PATH");
    assert!(
        output.status.success(),
        "pth.py failed (it needs Python's torch: cargo xtask setup --torch full):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

fn import(file: &Path) -> Result<(Imported, PathBuf), String> {
    let out = file.with_extension("imported");
    import_file(ImportKind::Torchvision, file, &out, Existing::Keep)
        .map(|imported| (imported, out.clone()))
        .map_err(|error| {
            assert!(!out.exists(), "{error}");
            error.to_string()
        })
}

#[test]
fn files_of_pytorch_are_read_bit_for_bit_or_refused_by_name() {
    let folder = files();
    let at = |name: &str| folder.path().join(name);
    let mut read = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|e| e != "pth") {
            continue;
        }
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("bad-") {
            continue;
        }
        let (imported, out) = import(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            fs::read(&out).unwrap() == fs::read(file.with_extension("safetensors")).unwrap(),
            "{name} has other values"
        );
        let expected = match name.as_str() {
            "alexnet-zip" => Some("torchvision's AlexNet, whole"),
            _ if name.starts_with("alexnet") => Some("torchvision's AlexNet, convolutions only"),
            _ => None,
        };
        assert_eq!(imported.network.as_deref(), expected, "{name}");
        let counters: &[&str] = match name.split('-').next() {
            Some("module" | "protocol3" | "protocol4" | "protocol5") => &["bn.num_batches_tracked"],
            _ => &[],
        };
        assert_eq!(imported.skipped, counters, "{name}");
        read += 1;
    }
    assert_eq!(read, 2 * 11 - 1 + 3);

    for (name, words) in [
        (
            "module",
            [
                "which is not allowed",
                "torch.save(model.state_dict(), FILE)",
            ],
        ),
        (
            "checkpoint",
            ["`state_dict` is", "torch.load(FILE)['state_dict']"],
        ),
        (
            "tensor",
            [
                "holds torch._utils._rebuild_tensor_v2 instead",
                "state dict",
            ],
        ),
        ("list", ["holds a list instead", "state dict"]),
        ("numbers", ["`epoch` is an int", "not a tensor"]),
        (
            "integers",
            ["`ids` is of whole numbers of 64 bits", "floating-point"],
        ),
        ("nan", ["`w` holds NaN", "position 1"]),
        (
            "huge",
            ["`w` holds 1e300 at position 1", "too large for f32"],
        ),
        ("empty", ["no weights", ""]),
        ("nothing", ["`w` is empty: its shape is [3, 0]", ""]),
        ("complex", ["torch.ComplexFloatStorage", "not allowed"]),
        (
            "sparse",
            ["torch._utils._rebuild_sparse_tensor", "not allowed"],
        ),
        ("metadata", ["`__metadata__`", "damaged"]),
        (
            "complex-negative",
            ["torch.ComplexFloatStorage", "not allowed"],
        ),
        (
            "quantized",
            ["torch._utils._rebuild_qtensor", "not allowed"],
        ),
        (
            "sparse-rows",
            ["torch._utils._rebuild_sparse_tensor", "not allowed"],
        ),
        ("float8", ["torch", "not allowed"]),
        ("unsigned", ["torch", "not allowed"]),
        (
            "meta",
            [
                "torch._utils._rebuild_meta_tensor_no_storage",
                "not allowed",
            ],
        ),
        (
            "nested",
            ["torch._utils._rebuild_nested_tensor", "not allowed"],
        ),
        (
            "subclass",
            ["torch._tensor._rebuild_from_type_v2", "not allowed"],
        ),
        (
            "attribute",
            ["torch._tensor._rebuild_from_type_v2", "not allowed"],
        ),
    ] {
        for form in ["zip", "old"] {
            let error = import(&at(&format!("bad-{name}-{form}.pth"))).unwrap_err();
            assert!(error.contains(name), "the file is not named: {error}");
            for word in words {
                assert!(error.contains(word), "`{word}` is not in: {error}");
            }
        }
    }
    let error = import(&at("bad-script.pth")).unwrap_err();
    assert!(error.contains("TorchScript"), "{error}");
}

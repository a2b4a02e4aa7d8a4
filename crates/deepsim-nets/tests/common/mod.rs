//! Runs the Python reference (`tests/python/reference.py`) and compares tensors with it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

/// Relative L2 error allowed in outputs and losses.
pub const OUTPUT: f64 = 1e-5;
/// Relative L2 error allowed in gradients, per tensor.
pub const GRADIENT: f64 = 1e-4;
/// A deliberate mistake must be at least this far off.
pub const MISTAKE: f64 = 1e-3;

/// What one run of the reference wrote.
pub struct Reference {
    tensors: BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", workspace().join("third_party/py"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs the reference and gives its stdout.
///
/// # Panics
/// Without Python's torch: these tests are never skipped silently.
pub fn reference_script(args: &[&str]) -> String {
    let script = workspace().join("tests/python/reference.py");
    let output = python()
        .arg(script)
        .args(args)
        .output()
        .expect("python3 must be on the PATH for the parity tests");
    if output.status.success() {
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let importable = python()
        .args(["-c", "import numpy, safetensors.torch, torch"])
        .output()
        .is_ok_and(|o| o.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        importable,
        "the parity tests need Python's torch, numpy and safetensors in third_party/py; \
         install them with: cargo xtask setup --torch full\n{stderr}"
    );
    panic!("reference.py {} failed:\n{stderr}", args.join(" "));
}

impl Reference {
    /// Runs one case, given as on the command line but without `--out`.
    pub fn run(case: &str) -> Reference {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reference.safetensors");
        let mut args: Vec<&str> = case.split_whitespace().collect();
        args.extend(["--out", file.to_str().unwrap()]);
        reference_script(&args);
        let bytes = std::fs::read(&file).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = parsed
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let kind = match view.dtype() {
                    Dtype::F32 => Kind::Float,
                    Dtype::F64 => Kind::Double,
                    Dtype::U8 => Kind::Uint8,
                    other => panic!("{name} is {other:?}"),
                };
                let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
                (name, Tensor::from_data_size(view.data(), &shape, kind))
            })
            .collect();
        Reference {
            tensors,
            metadata: header.metadata().clone().unwrap(),
        }
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| {
            panic!(
                "the reference wrote no `{name}`; it wrote {:?}",
                self.tensors.keys()
            )
        })
    }

    /// A scalar by name.
    pub fn scalar(&self, name: &str) -> f64 {
        self.get(name).double_value(&[])
    }

    /// A copy that takes gradients.
    pub fn leaf(&self, name: &str) -> Tensor {
        self.get(name).copy().set_requires_grad(true)
    }

    /// All tensors below `prefix`, under their names without it.
    pub fn group(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        self.tensors
            .iter()
            .filter_map(|(k, t)| Some((k.strip_prefix(prefix)?.to_owned(), t.shallow_clone())))
            .collect()
    }

    /// An entry of the metadata.
    pub fn meta(&self, key: &str) -> &str {
        self.metadata
            .get(key)
            .unwrap_or_else(|| panic!("no `{key}` in the metadata"))
    }

    /// An entry of the metadata as comma-separated whole numbers.
    pub fn numbers(&self, key: &str) -> Vec<i64> {
        self.meta(key)
            .split(',')
            .map(|v| v.parse().unwrap())
            .collect()
    }
}

/// ‖found − expected‖ / ‖expected‖ in double precision; infinite where shapes differ, values are
/// not finite, or nothing but zeros was expected: a comparison without content passes nowhere.
pub fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    if found.size() != expected.size() {
        return f64::INFINITY;
    }
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let unit = expected.norm().double_value(&[]);
    let error = (found - expected).norm().double_value(&[]) / unit;
    if error.is_finite() {
        error
    } else {
        f64::INFINITY
    }
}

/// Fails unless two tensors agree.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = relative(found, expected);
    assert!(
        error <= tolerance,
        "{what}: relative error {error:.2e} above {tolerance:.0e} (shapes {:?} and {:?})",
        found.size(),
        expected.size()
    );
}

/// Gradients of `y · up` with regard to `inputs`.
pub fn gradients(y: &Tensor, up: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    assert_eq!(
        y.size(),
        up.size(),
        "the output has another shape than the reference's"
    );
    Tensor::run_backward(&[(y * up).sum(Kind::Float)], inputs, true, false)
}

//! Runs the Python reference (`tests/python/reference.py`) and compares tensors with it.
//!
//! The reference computes in double precision. So do we, through libtorch's operations, and there both
//! must agree to rounding: whole iterations with Adam's own epsilon too, whose first step is all sign in
//! single precision where a gradient is the size of rounding. What single precision and the kernels of
//! our own add is then held against our own double precision with the same sides of kinks
//! ([`deepsim_nets::sides`]). Neither depends on the processor, the number of threads or the seed, and
//! no bound is wider than the reference in single precision is from itself in double: over ten seeds
//! docs/results/parity.json has that too.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use deepsim_nets::sides::{self, Sides};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

/// Relative error allowed between two computations in double precision.
pub const EXACT: f64 = 1e-9;
/// The same where the reference's numbers are stored in single precision (a unit in the last place is
/// 1.2e-7, its half the error of one number).
pub const STORED: f64 = 1e-7;
/// Relative L2 error allowed in outputs and losses in single precision.
pub const OUTPUT: f64 = 1e-5;
/// Relative L2 error allowed in gradients in single precision, per tensor, with the same sides of kinks.
pub const GRADIENT: f64 = 3e-5;
/// How far double precision moves when the sides of single precision are imposed on it: each value that
/// changes sides lies within rounding of its kink, or its output would tell.
pub const IMPOSED: f64 = 1e-5;
/// A fault in an iteration must move a gradient by this much at least: a hundred times what double
/// precision is allowed where it is allowed most.
pub const FAULT: f64 = 100.0 * STORED;
/// A deliberate mistake must be at least this far off.
pub const MISTAKE: f64 = 1e-3;

/// Environment variable with the seed of all images, weights and draws of the parity tests.
pub const SEED_VARIABLE: &str = "DEEPSIM_PARITY_SEED";
/// The seed where the variable is not set: any other serves as well.
pub const SEED: i64 = 1;
/// Environment variable with a file that every comparison is appended to, one JSON object a line.
pub const RECORD_VARIABLE: &str = "DEEPSIM_PARITY_RECORD";

/// Environment variable with a folder that keeps what the reference answers: one answer serves all settings. Whoever sets
/// it empties it when the reference changes.
pub const CACHE_VARIABLE: &str = "DEEPSIM_PARITY_CACHE";
/// Larger answers are computed again: few of them serve many settings, and together they would take 10 GB.
const LARGEST_KEPT: usize = 200_000_000;
/// Environment variable that, set, lets the record have the difference of the reference's two
/// precisions as well.
pub const REFERENCE_VARIABLE: &str = "DEEPSIM_PARITY_REFERENCE";

/// The seed of this run.
pub fn seed() -> i64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{SEED_VARIABLE} is `{text}`, not a whole number")),
        Err(_) => SEED,
    }
}

/// Appends a comparison to the record, where one is kept.
fn record(what: &str, error: f64, bound: f64) {
    let Some(path) = std::env::var_os(RECORD_VARIABLE) else {
        return;
    };
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let line = serde_json::json!({ "test": test, "what": what, "error": error, "bound": bound });
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

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

/// A reference that waits for cases: importing torch takes longer than most of them.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Those that wait. They end with this process, whose ends of their pipes close.
static IDLE: Mutex<Vec<Server>> = Mutex::new(Vec::new());

fn idle() -> std::sync::MutexGuard<'static, Vec<Server>> {
    IDLE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Server {
    fn start() -> Server {
        let mut child = python()
            .arg(workspace().join("tests/python/reference.py"))
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 must be on the PATH for the parity tests");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Server {
            child,
            input,
            output: BufReader::new(output),
        }
    }

    /// What went wrong, if anything.
    fn ask(&mut self, case: &str) -> Option<String> {
        let mut answer = String::new();
        let sent = self.input.write_all(format!("{case}\n").as_bytes());
        let heard = sent
            .and_then(|()| self.input.flush())
            .and_then(|()| self.output.read_line(&mut answer));
        if heard.is_ok_and(|n| n > 0) {
            return serde_json::from_str(&answer).unwrap();
        }
        let status = self.child.wait().unwrap();
        Some(format!(
            "it ended ({status}); the parity tests need Python's torch, numpy and safetensors in \
             third_party/py: cargo xtask setup --torch full"
        ))
    }
}

/// Runs one case of the reference.
///
/// # Panics
/// Without Python's torch: these tests are never skipped silently.
fn ask(case: &str) {
    let waiting = idle().pop();
    let mut server = waiting.unwrap_or_else(Server::start);
    if let Some(wrong) = server.ask(case) {
        panic!("reference.py {case} failed:\n{wrong}");
    }
    idle().push(server);
}

/// What the reference answers to one case: computed, or read where an earlier run has kept it.
fn answer(case: &str) -> Vec<u8> {
    // The settings do not change what PyTorch computes by more than double precision shows; but the normal numbers that
    // an autoencoder's codes are drawn by differ in single precision's last places with the instructions at hand.
    let drawn = case.starts_with("vae");
    let folder = std::env::var_os(CACHE_VARIABLE).filter(|_| !drawn);
    let kept = folder.map(|folder| {
        let name = format!("{}.safetensors", blake3::hash(case.as_bytes()));
        PathBuf::from(folder).join(name)
    });
    if let Some(bytes) = kept.as_ref().and_then(|file| std::fs::read(file).ok()) {
        return bytes;
    }
    let folder = kept.as_deref().and_then(Path::parent);
    let new = folder.map_or_else(
        tempfile::NamedTempFile::new,
        tempfile::NamedTempFile::new_in,
    );
    let new = new.unwrap();
    ask(&format!("{case} --out '{}'", new.path().display()));
    let bytes = std::fs::read(new.path()).unwrap();
    if let Some(file) = kept.filter(|_| bytes.len() < LARGEST_KEPT) {
        new.persist(file).unwrap();
    }
    bytes
}

/// Runs the reference's checks of itself and gives what they print.
pub fn selftest() -> String {
    let script = workspace().join("tests/python/reference.py");
    let output = python().arg(script).arg("--selftest").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Reference {
    /// Runs one case, given as on the command line but without `--seed` and `--out`.
    pub fn run(case: &str) -> Reference {
        let reference = Reference::computed(case, &[]);
        if std::env::var_os(REFERENCE_VARIABLE).is_some() {
            Reference::computed(case, &["--single"]).compare_precisions(case, &reference);
        }
        reference
    }

    /// Notes how far the reference in single precision is from itself in double.
    fn compare_precisions(&self, case: &str, double: &Reference) {
        let own =
            |name: &&String| double.tensors[*name].kind() == Kind::Double || name.starts_with('g');
        for name in self.tensors.keys().filter(own) {
            let error = relative(&self.tensors[name], &double.tensors[name]);
            if error.is_finite() {
                record(&format!("reference: {case}: {name}"), error, f64::INFINITY);
            }
        }
    }

    fn computed(case: &str, more: &[&str]) -> Reference {
        let bytes = answer(&format!("{case} --seed {} {}", seed(), more.join(" ")));
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

    /// A copy in some precision that takes gradients.
    pub fn leaf(&self, name: &str, kind: Kind) -> Tensor {
        self.get(name).to_kind(kind).copy().set_requires_grad(true)
    }

    /// [`Reference::group`] in some precision.
    pub fn group_in(&self, prefix: &str, kind: Kind) -> BTreeMap<String, Tensor> {
        let all = self.group(prefix).into_iter();
        all.map(|(name, t)| (name, t.to_kind(kind))).collect()
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
    record(what, error, tolerance);
    assert!(
        error <= tolerance,
        "{what}: relative error {error:.2e} above {tolerance:.0e} (shapes {:?} and {:?})",
        found.size(),
        expected.size()
    );
}

/// Fails unless a result in double precision is the reference's.
pub fn assert_exact(what: &str, found: &Tensor, expected: &Tensor) {
    let bound = match expected.kind() {
        Kind::Double => EXACT,
        _ => STORED,
    };
    assert_close(
        &format!("{what} in double precision"),
        found,
        expected,
        bound,
    );
}

/// A named tensor of each weight of a network: gradients, moments or movements.
pub type Named = Vec<(String, Tensor)>;

/// The largest gradient of a network. With it for an epsilon, an optimiser's step has the gradients' relative error. With
/// a small epsilon each weight makes a whole step, whichever sign rounding left to the smallest gradients, and what the
/// network then computes is off by far more than its gradients are.
pub fn largest(gradients: &Named) -> f64 {
    let all = gradients
        .iter()
        .map(|(_, g)| g.abs().max().double_value(&[]));
    let largest = all.fold(0.0, f64::max);
    assert!(largest > 0.0 && largest.is_finite(), "no gradients");
    largest
}

/// Errors of each tensor of one network, relative to the larger of the tensor's norm and of 1e-3 of what
/// it would be if all of the network's tensors were equally large: next to nothing in one tensor is
/// measured by the others. A tensor that is nothing but rounding, such as the gradient of a bias before a normalisation, is
/// measured by ten times as much.
pub fn errors(found: &Named, expected: &Named) -> Vec<(String, f64)> {
    let norm = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
    let all: f64 = expected
        .iter()
        .map(|(_, t)| norm(t).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!(
        all > 0.0 && all.is_finite(),
        "nothing was expected, or no numbers"
    );
    let least = 1e-3 * all / (expected.len() as f64).sqrt();
    assert_eq!(found.len(), expected.len(), "tensors of a network");
    let both = found.iter().zip(expected);
    both.map(|((name, f), (n, e))| {
        assert_eq!((name, f.size()), (n, e.size()));
        let apart = norm(&(f.to_kind(Kind::Double) - e.to_kind(Kind::Double)));
        let nothing = norm(e) < 1e-9 * all;
        let error = apart / norm(e).max(if nothing { 10.0 * least } else { least });
        (
            name.clone(),
            if error.is_finite() {
                error
            } else {
                f64::INFINITY
            },
        )
    })
    .collect()
}

/// The worst of [`errors`].
pub fn worst(found: &Named, expected: &Named) -> (String, f64) {
    let all = errors(found, expected).into_iter();
    all.fold((String::new(), 0.0), |a, b| if b.1 > a.1 { b } else { a })
}

/// Fails unless all tensors of a network agree.
pub fn assert_all_close(what: &str, found: &Named, expected: &Named, tolerance: f64) {
    let (name, error) = worst(found, expected);
    record(what, error, tolerance);
    assert!(
        error <= tolerance,
        "{what}: {name} is off by {error:.2e}, more than {tolerance:.0e}"
    );
}

/// What a computation gives: outputs and losses under the reference's names, and for each network (or
/// for the images) gradients and what else is linear in them.
#[derive(Debug, Default)]
pub struct Values {
    /// Without jumps.
    pub outputs: Named,
    /// Losses of networks that have made a step. The step was taken along a gradient, which jumps at kinks: in single
    /// precision they are held against double precision that took the same sides.
    pub stepped: Named,
    /// With jumps at kinks; by group.
    pub gradients: Vec<(String, Named)>,
    /// How many times the bounds of single precision hold, where a definition magnifies rounding: differences of nearly
    /// equal numbers, divided by what may be small. None for once.
    pub magnified: Option<f64>,
}

impl Values {
    /// Adds a loss, and whether a step came before it.
    pub fn lost(&mut self, name: String, loss: Tensor, stepped: bool) {
        let list = if stepped {
            &mut self.stepped
        } else {
            &mut self.outputs
        };
        list.push((name, loss));
    }

    /// Adds gradients of one group.
    pub fn add(&mut self, group: &str, gradients: impl IntoIterator<Item = (String, Tensor)>) {
        self.gradients
            .push((group.to_owned(), gradients.into_iter().collect()));
    }
}

/// Holds a computation in single precision against the same in double precision with the same sides of
/// kinks; gives back the sides, and what double precision finds with its own.
pub fn assert_rounding_alone(what: &str, compute: &dyn Fn(Kind) -> Values) -> (Sides, Values) {
    let (single, sides) = sides::recorded(|| compute(Kind::Float));
    let (own, exact_sides) = sides::recorded(|| compute(Kind::Double));
    let exact = sides::imposed(&sides, || compute(Kind::Double)).unwrap();
    let (differing, all) = sides.differing(&exact_sides).unwrap();
    // One of so many lies within the rounding of its kink where rounding is a thousandth of what values differ by. Far more
    // would be a computation of something else: of independent values half have other sides. An output alone tells, too.
    assert!(
        differing * 1_000 <= all + 1_000,
        "{what}: {differing} of {all} values have changed sides"
    );
    let times = single.magnified.unwrap_or(1.0);
    for (((name, found), (_, exact)), (_, own)) in
        single.outputs.iter().zip(&exact.outputs).zip(&own.outputs)
    {
        assert_close(
            &format!("{what}: {name} in single precision"),
            found,
            own,
            times * OUTPUT,
        );
        assert_close(
            &format!("{what}: {name} with its sides"),
            exact,
            own,
            IMPOSED,
        );
    }
    for ((name, found), (_, exact)) in single.stepped.iter().zip(&exact.stepped) {
        let what = format!("{what}: {name} in single precision with its sides");
        assert_close(&what, found, exact, OUTPUT);
    }
    assert_eq!(single.gradients.len(), exact.gradients.len());
    for ((group, found), (_, exact)) in single.gradients.iter().zip(&exact.gradients) {
        let what = format!("{what}: {group} in single precision with its sides");
        assert_all_close(&what, found, exact, times * GRADIENT);
    }
    (sides, own)
}

/// Holds a computation of ours against the reference, in double precision and then in single.
pub fn assert_parity(what: &str, r: &Reference, compute: &dyn Fn(Kind) -> Values) -> Sides {
    let (sides, own) = assert_rounding_alone(what, compute);
    assert_reference(what, r, &own);
    sides
}

/// Holds results in double precision against the reference's of the same names.
pub fn assert_reference(what: &str, r: &Reference, own: &Values) {
    for (name, found) in own.outputs.iter().chain(&own.stepped) {
        assert_exact(&format!("{what}: {name}"), found, r.get(name));
    }
    for (group, found) in &own.gradients {
        let expected: Named = found
            .iter()
            .map(|(name, _)| (name.clone(), r.get(name).shallow_clone()))
            .collect();
        let bound = if expected.iter().all(|(_, t)| t.kind() == Kind::Double) {
            EXACT
        } else {
            STORED
        };
        let what = format!("{what}: {group} in double precision");
        assert_all_close(&what, found, &expected, bound);
    }
}

/// Gradients of `y · up` with regard to `inputs`.
pub fn gradients(y: &Tensor, up: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    assert_eq!(
        y.size(),
        up.size(),
        "the output has another shape than the reference's"
    );
    let up = up.to_kind(y.kind());
    Tensor::run_backward(&[(y * up).sum(y.kind())], inputs, true, false)
}

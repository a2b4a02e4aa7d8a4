//! What must be there before the first worker starts, and how each worker is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tuning::Tuning;
use super::work::{Contender, ON_GPUS, Work};
use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::lock::Lock;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;
use deepsim_tools::{python, requirements};

const PACKAGE: &str = "deepsim-bench";
const SCRIPTS: &str = "tools/bench/python";
const LOCK: &str = "tools/python/bench.txt";

/// glibc as the tuned PyTorch wants it: freed memory is kept, in large pages, instead of being given back and
/// cleared again by the kernel in every iteration (a fifth of the time at batch 64).
const MALLOC: [(&str, &str); 4] = [
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "100000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// Everything that is needed to start workers.
#[derive(Debug)]
pub struct Bench<'a> {
    ws: &'a Workspace,
    program: PathBuf,
    precision: &'static str,
    device: String,
    /// torch.compile's, on a GPU.
    compile_mode: &'static str,
}

impl<'a> Bench<'a> {
    /// Checks PyTorch and photos, installs the extra packages, builds our worker where it is not given.
    ///
    /// # Errors
    /// A refusal for what is missing; a failed pip or build.
    pub fn prepare(
        ws: &'a Workspace,
        works: &[Work],
        precision: &'static str,
        device: &str,
        worker: Option<&Path>,
    ) -> Result<Bench<'a>> {
        if !python::imports(&ws.python()) {
            return Err(refuse(
                "the benchmark compares with PyTorch in Python, which is not installed here: \
                 cargo xtask setup --torch full",
            ));
        }
        if works.iter().any(|work| work.needs_photos()) && !ws.photos().is_dir() {
            return Err(refuse(
                "the works data and shards need the sample photos: cargo xtask setup --only photos",
            ));
        }
        if works.iter().any(|work| work.needs_extra_packages()) {
            install(ws)?;
        }
        let program = match worker {
            Some(file) => std::path::absolute(file).context("finding the worker")?,
            None => {
                note("building our worker (release; some minutes the first time)");
                let programs = if device == "cpu" {
                    Programs::for_speed(ws, &[PACKAGE])?
                } else {
                    Programs::for_gpu(ws, &[PACKAGE])?
                };
                programs.path(PACKAGE)?
            }
        };
        Ok(Bench {
            ws,
            program,
            precision,
            device: device.to_owned(),
            compile_mode: "reduce-overhead",
        })
    }

    /// With another mode of torch.compile on a GPU.
    pub fn compiled_by(self, compile_mode: &'static str) -> Bench<'a> {
        Bench {
            compile_mode,
            ..self
        }
    }

    /// Our program, for what is no work.
    pub fn program(&self, what: &str) -> Child {
        Child::new(what, &self.program, self.ws.root())
    }

    /// Whether the works are done on a GPU.
    pub fn on_gpu(&self) -> bool {
        self.device != "cpu"
    }

    /// Writes what all contenders of a work start from.
    ///
    /// # Errors
    /// A full disk; photos that cannot be read.
    pub fn inputs(&self, work: Work) -> Result<()> {
        let folder = self.folder(work);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        if work.needs_photos() {
            return self
                .python(&["photos.py"])
                .args([self.ws.photos(), self.jpegs()])
                .run();
        }
        if work.trains() {
            return self.training_inputs(work, &[], &folder).run();
        }
        Ok(())
    }

    /// The program that writes what a training work starts from, at other sizes where `sizes` has them.
    pub fn training_inputs(&self, work: Work, sizes: &[String], folder: &Path) -> Child {
        self.program("writing the inputs")
            .args(["inputs", work.name()])
            .args([folder])
            .args(sizes)
    }

    /// Looks for the fastest setting of the tuned PyTorch; none for works that leave it no choice.
    ///
    /// # Errors
    /// Inputs that are not there; a script that fails.
    pub fn tuning(&self, work: Work) -> Result<Option<Tuning>> {
        if !(work.trains() && self.takes_part(work, Contender::Tuned)) {
            return Ok(None);
        }
        note(format_args!(
            "{}: trying settings of the tuned PyTorch (a minute or two)",
            work.name()
        ));
        self.tuned_on(work, &self.folder(work)).map(Some)
    }

    /// The same on inputs that lie in `folder`.
    ///
    /// # Errors
    /// As [`Bench::tuning`].
    pub fn tuned_on(&self, work: Work, folder: &Path) -> Result<Tuning> {
        let cores = cores();
        let threads = if cores > 1 {
            format!("1,{cores}")
        } else {
            "1".to_owned()
        };
        let mut script = self
            .python(&["tune.py"])
            .args([folder])
            .args([self.device.as_str(), self.precision, threads.as_str()])
            .args(work.script(Contender::Tuned).unwrap_or(&[]).iter().skip(1));
        for (key, value) in MALLOC {
            script = script.env(key, value);
        }
        serde_json::from_slice(&script.output()?)
            .context("reading what tune.py found of the tuned PyTorch")
    }

    /// What our program and PyTorch say of the code that they compute with, as JSON.
    ///
    /// # Errors
    /// A program that fails.
    pub fn paths(&self) -> Result<[Vec<u8>; 2]> {
        let ours = self.program("our program").args(["paths"]);
        Ok([ours.output()?, self.python(&["paths.py"]).output()?])
    }

    /// Whether a contender has a part in a work.
    pub fn takes_part(&self, work: Work, contender: Contender) -> bool {
        let somewhere = match contender {
            Contender::Ours => true,
            Contender::Uncaptured => work.trains(),
            _ => work.script(contender).is_some(),
        };
        somewhere && (self.on_gpu() || !ON_GPUS.contains(&contender))
    }

    /// Our worker of a training work, on inputs that lie in `folder`; its phases are not timed.
    pub fn our_worker(
        &self,
        work: Work,
        folder: &Path,
        precision: &str,
        more: &[String],
    ) -> Command {
        let mut command = self.ours();
        command.args(["work", work.name()]).arg(folder);
        command.args(["--precision", precision, "--device", &self.device]);
        command.arg("--no-phases").args(more);
        command
    }

    /// The tuned PyTorch's worker of a training work, on inputs that lie in `folder`.
    pub fn tuned_worker(&self, work: Work, folder: &Path, tuning: &Tuning) -> Option<Command> {
        self.set_worker(work, folder, &tuning.arguments())
    }

    /// The same with these settings.
    fn set_worker(&self, work: Work, folder: &Path, settings: &[String; 3]) -> Option<Command> {
        let [script, arguments @ ..] = work.script(Contender::Tuned)? else {
            return None;
        };
        let mut command = self.script(script, folder);
        command.arg(&self.device).args(settings);
        command.envs(MALLOC).args(arguments);
        Some(command)
    }

    /// How a contender of a work is started; none where it has no part.
    pub fn command(
        &self,
        work: Work,
        contender: Contender,
        tuning: Option<&Tuning>,
    ) -> Option<Command> {
        if !self.takes_part(work, contender) {
            return None;
        }
        let folder = match work {
            Work::Data | Work::Shards => self.jpegs(),
            _ => self.folder(work),
        };
        if matches!(contender, Contender::Ours | Contender::Uncaptured) {
            let mut command = self.ours();
            command.args(["work", work.name()]).arg(folder);
            command.args(["--precision", self.precision, "--device", &self.device]);
            if contender == Contender::Uncaptured {
                command.args(["--no-graphs", "--no-phases"]);
            }
            return Some(command);
        }
        match (contender, tuning) {
            (Contender::Tuned, Some(tuning)) => return self.tuned_worker(work, &folder, tuning),
            (Contender::Compiled, tuning) => {
                let [precision, threads, _] = tuning?.arguments();
                let settings = [precision, threads, self.compile_mode.to_owned()];
                return self.set_worker(work, &folder, &settings);
            }
            _ => {}
        }
        let [script, arguments @ ..] = work.script(contender)? else {
            return None;
        };
        let mut command = self.script(script, &folder);
        if work.trains() {
            command.arg(&self.device);
        }
        command.args(arguments);
        Some(command)
    }

    /// A script on inputs that lie in `folder`.
    fn script(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new("python3");
        command
            .current_dir(self.ws.root())
            .env("PYTHONPATH", self.python_path())
            .arg(self.ws.path(SCRIPTS).join(name))
            .arg(folder);
        command
    }

    /// The worker that multiplies matrices.
    pub fn gemm(&self, precision: &str) -> Command {
        let mut command = self.ours();
        command.args(["work", "gemm", "-", "--precision", precision]);
        command.args(["--device", &self.device]);
        command
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.ws.root());
        command
    }

    fn python(&self, script: &[&str]) -> Child {
        let (name, rest) = script.split_first().unwrap_or((&"", &[]));
        Child::new(*name, "python3", self.ws.root())
            .env("PYTHONPATH", self.python_path())
            .args([self.ws.path(SCRIPTS).join(name)])
            .args(rest)
    }

    fn python_path(&self) -> String {
        let folders = [self.ws.python(), packages(self.ws)];
        let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        folders.join(":")
    }

    fn folder(&self, work: Work) -> PathBuf {
        self.ws.path("target/bench").join(work.name())
    }

    fn jpegs(&self) -> PathBuf {
        self.ws.path("target/bench/jpegs")
    }
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn packages(ws: &Workspace) -> PathBuf {
    ws.third_party().join("bench-py")
}

/// Installs torchvision and faiss unless they are there as the lock file says.
fn install(ws: &Workspace) -> Result<()> {
    let (lock, target) = (ws.path(LOCK), packages(ws));
    if requirements::follows(&lock, &target)? {
        return Ok(());
    }
    // A set-up that starts meanwhile would sweep away what is half installed.
    let _lock = Lock::take(ws)?;
    note("torchvision and faiss: 27 MB to fetch");
    requirements::install(&lock, &target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extra_packages_are_locked_to_a_torchvision() {
        let ws = Workspace::find(None).unwrap();
        let lock = std::fs::read_to_string(ws.path(LOCK)).unwrap();
        let pins = lock.lines().filter_map(|line| line.split_once("=="));
        let names: Vec<_> = pins.map(|(name, _)| name).collect();
        assert_eq!(names, ["faiss-cpu", "torchvision"]);
    }
}

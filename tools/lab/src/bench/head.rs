//! What is measured on: the processor and its kind, and which code computes there, ours and PyTorch's.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::preparation::Bench;
use super::wrap::wrapped;
use deepsim_tools::machine;

/// Everything that a record says of its machine and of the code that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// As the kernel names it.
    pub processor: Option<String>,
    /// The kind of it, which names the record.
    pub kind: String,
    /// The commit that was measured.
    pub commit: Option<String>,
    /// The code of both.
    pub paths: Paths,
}

/// Code that computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paths {
    /// Ours.
    pub ours: Ours,
    /// PyTorch's.
    pub torch: Torch,
}

/// Which code of ours computes, as `deepsim-bench paths` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ours {
    /// In regions of bf16.
    pub bf16: String,
    /// In fp32.
    pub fp32: String,
    /// Arithmetic of the candidates of nearest neighbours.
    pub neighbours: String,
    /// libtorch's threads.
    pub threads: u32,
}

/// Which code of PyTorch's computes, as `tools/bench/python/paths.py` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Torch {
    /// Its version.
    pub version: String,
    /// oneDNN's instruction set in its own words.
    pub onednn: Option<String>,
    /// That of its own kernels.
    pub aten: String,
    /// Its own number of threads.
    pub threads: u32,
}

impl Head {
    /// Asks the machine, our program and PyTorch.
    ///
    /// # Errors
    /// A program that fails or answers with something else.
    pub fn ask(bench: &Bench, commit: Option<String>) -> Result<Head> {
        let [ours, torch] = bench.paths()?;
        Ok(Head {
            processor: machine::processor(),
            kind: machine::kind(),
            commit,
            paths: Paths {
                ours: serde_json::from_slice(&ours).context("reading our paths")?,
                torch: serde_json::from_slice(&torch).context("reading PyTorch's paths")?,
            },
        })
    }

    /// The lines that are said first.
    pub fn lines(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or("unknown");
        let mut out = wrapped(&format!("processor: {processor} ({})", self.kind));
        out.push_str(&self.paths.lines());
        let lowered = machine::lowered();
        if !lowered.is_empty() {
            out.push_str(&wrapped(&format!(
                "LOWERED: {} set, so that less than this processor was measured",
                lowered.join(", ")
            )));
        }
        out
    }
}

impl Paths {
    /// A line for each of both.
    pub fn lines(&self) -> String {
        let Paths { ours, torch } = self;
        let onednn = torch.onednn.as_deref().unwrap_or("not said");
        wrapped(&format!(
            "ours: in bf16 {}; in fp32 {}; neighbours by {} candidates; threads {}",
            ours.bf16, ours.fp32, ours.neighbours, ours.threads
        )) + &wrapped(&format!(
            "torch: {}; oneDNN for {onednn}; its own kernels for {}; threads by itself {}",
            torch.version, torch.aten, torch.threads
        ))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine that is not this one.
    pub fn example() -> Head {
        Head {
            processor: Some("2 x A, no AMX".to_owned()),
            kind: "amd-avx512-bf16".to_owned(),
            commit: Some("abc".to_owned()),
            paths: Paths {
                ours: Ours {
                    bf16: "libtorch's autocast".to_owned(),
                    fp32: "our Winograd, AVX-512, and libtorch".to_owned(),
                    neighbours: "int8".to_owned(),
                    threads: 2,
                },
                torch: Torch {
                    version: "2.13.0+cpu".to_owned(),
                    onednn: None,
                    aten: "AVX512".to_owned(),
                    threads: 2,
                },
            },
        }
    }

    #[test]
    fn the_head_names_processor_kind_and_paths() {
        let text = example().lines();
        for words in [
            "processor: 2 x A, no AMX (amd-avx512-bf16)",
            "ours: in bf16 libtorch's autocast; in fp32 our Winograd",
            "torch: 2.13.0+cpu; oneDNN for not said; its own kernels for AVX512",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}

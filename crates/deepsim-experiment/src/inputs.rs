//! The files and folders that an experiment names: whether they are there, and how to get those that are not.

use std::path::Path;

use deepsim_data::terminal::{path as shown, quote};

use crate::error::{ExperimentError, Result};
use crate::experiment::Experiment;

impl Experiment {
    /// Checks that the files and folders that the experiment names are there, before anything
    /// is opened for long or written.
    ///
    /// # Errors
    /// [`ExperimentError::MissingInputs`] with all of them at once, each with the way to get it.
    pub fn check_inputs(&self) -> Result<()> {
        let mut missing: Vec<String> = Vec::new();
        for (key, path) in [
            ("data.train", &self.config.data.train),
            ("data.test", &self.config.data.test),
        ] {
            if !path.exists() {
                missing.push(format!(
                    "- {key}: no folder {}\n{}",
                    shown(path),
                    data_help(key, path)
                ));
            }
        }
        let mut seen: Vec<&Path> = Vec::new();
        for (table, source) in self.sources() {
            for (key, path) in source.files() {
                if path.exists() || seen.contains(&path) {
                    continue;
                }
                seen.push(path);
                let help = source.help(path);
                let key = match table {
                    "discriminator" => "network_weights",
                    _ => key,
                };
                missing.push(format!("- {table}.{key}: no file {}\n{help}", shown(path)));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let quick = "the same on sample photos and real AlexNet features, today: \
                     `cargo xtask quickstart`, or, after `cargo xtask setup`, \
                     `cargo run -p deepsim-train -- experiments/sample/pool5.toml`";
        Err(ExperimentError::MissingInputs {
            path: self.path.clone(),
            missing,
            help: match std::env::current_dir() {
                Ok(cwd) => format!(
                    "(relative paths were looked for in {}; the paths of this project's experiments begin \
                     at its root)\n{quick}",
                    shown(cwd)
                ),
                Err(_) => quick.to_owned(),
            },
        })
    }
}

/// How to make the dataset that a key names. The two keys are never given the same images: what is trained on is not
/// held out.
fn data_help(key: &str, path: &Path) -> String {
    let text = quote(path);
    let is_test = key == "data.test";
    if text.contains("ilsvrc") {
        let half = if is_test { "val" } else { "train" };
        return format!(
            "  ILSVRC-2012 needs an account at image-net.org; with ILSVRC2012_img_{half}.tar, make it by\n  \
             `cargo run --release -p deepsim-data -- prepare ILSVRC2012_img_{half}.tar {text} --resize squash`"
        );
    }
    if text.contains("data/debian") || text.contains("data/sample") {
        let earlier = if text.contains("data/sample") {
            " (in data/debian; earlier versions had fewer of them in data/sample)"
        } else {
            ""
        };
        return format!(
            "  `cargo xtask setup --only sample` fetches and prepares the sample photos{earlier}"
        );
    }
    let own = if is_test { "test" } else { "train" };
    if let (Some(parent), true) = (path.parent(), path.ends_with(own))
        && !parent.as_os_str().is_empty()
    {
        return format!(
            "  make both parts from one folder of images by `cargo run -p deepsim-data -- prepare FOLDER {} \
             --holdout 0.1`",
            quote(parent)
        );
    }
    let images = if is_test {
        "HELD_OUT_FOLDER"
    } else {
        "TRAINING_FOLDER"
    };
    format!(
        "  make it by `cargo run -p deepsim-data -- prepare {images} {text}`; no image may be in both data.train \
         and data.test"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followed_to_the_letter_the_hints_never_make_test_equal_train() {
        for (train, test) in [
            ("data/mine", "data/mine"),
            ("data/mine/train", "data/mine/test"),
            ("data/a", "data/b"),
            ("data/ilsvrc-train", "data/ilsvrc-train"),
            ("data/ilsvrc-val", "data/ilsvrc-val"),
        ] {
            let train = data_help("data.train", Path::new(train));
            let test = data_help("data.test", Path::new(test));
            let source = |help: &str| {
                let (_, after) = help.split_once("prepare ").unwrap_or_default();
                after.split(' ').next().unwrap_or_default().to_owned()
            };
            let one_command_for_both = train == test && train.contains("--holdout");
            assert!(
                one_command_for_both || source(&train) != source(&test),
                "{train}\n{test}"
            );
        }
    }
}

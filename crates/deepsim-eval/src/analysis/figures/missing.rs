//! What a figure lacks, and how to get it.

use deepsim_data::terminal::path as shown;
use deepsim_data::terminal::quote;
use deepsim_experiment::Experiment;

use crate::run::catalog::{Loss, inverts, net_name};

/// A part of a figure that no run stands for.
#[derive(Clone, Debug)]
pub enum Missing {
    /// A run with this loss.
    Loss(Loss),
    /// Mahendran & Vedaldi's method at this layer.
    MahendranVedaldi(String),
    /// Other runs to compare those that there are with.
    Others {
        /// What is missing, in words.
        what: &'static str,
        /// Whether an experiment makes one.
        fits: fn(&Experiment) -> bool,
        /// Whether it must look like what the figure has.
        alike: bool,
    },
}

/// The experiment nearest to a model at whose layer none does it: at another layer, whose name can be set.
fn elsewhere(
    files: &[Experiment],
    fits: impl Fn(&&Experiment) -> bool,
    model: &Experiment,
) -> String {
    let (wanted, here) = (&model.config, net_name(&model.encoder));
    let near = |e: &&Experiment| {
        let config = &e.config;
        config.encoder.net == wanted.encoder.net
            && config.encoder.weights == wanted.encoder.weights
            && config.data.crop == wanted.data.crop
            && config.data.test == wanted.data.test
    };
    let mut found: Vec<&Experiment> = files.iter().filter(fits).filter(near).collect();
    found.sort_by_key(|e| e.path.as_os_str().len());
    match (found.first(), wanted.encoder.tap.as_ref()) {
        (Some(e), Some(tap)) => format!(
            "no experiment file here makes it at {here}, but {} does at {}: train that with \
             `--set encoder.tap={tap} --out runs/NAME`",
            shown(&e.path),
            net_name(&e.encoder)
        ),
        _ => format!("no experiment file here makes it at {here}"),
    }
}

impl Missing {
    /// What is missing and, where one of `files` makes it, the command. Files that look like
    /// `model` (what the figure has) are preferred.
    pub fn advice(&self, files: &[Experiment], model: Option<&Experiment>) -> String {
        let like = |e: &&Experiment| {
            model.is_none_or(|m| {
                e.config.encoder == m.config.encoder
                    && e.config.data.crop == m.config.data.crop
                    && e.config.data.test == m.config.data.test
            })
        };
        let train = |found: Option<&Experiment>| match found {
            Some(e) => format!(
                "train it by `cargo run -p deepsim-train -- {}`",
                quote(&e.path)
            ),
            None => "no experiment file here makes it".to_owned(),
        };
        match self {
            Missing::Loss(loss) => {
                let fits = |e: &&Experiment| inverts(e) && Loss::of(e) == *loss;
                let mut same: Vec<&Experiment> = files.iter().filter(fits).filter(like).collect();
                if same.is_empty() && model.is_none() {
                    same = files.iter().filter(fits).collect();
                }
                // Variants append to a name: the shortest is the plain one.
                same.sort_by_key(|e| e.path.as_os_str().len());
                let how = match (same.first(), model) {
                    (None, Some(model)) => elsewhere(files, fits, model),
                    (found, _) => train(found.copied()),
                };
                format!("no run with {}; {how}", loss.words())
            }
            Missing::MahendranVedaldi(layer) => {
                let fits = |e: &&Experiment| inverts(e) && net_name(&e.encoder) == *layer;
                let how = match files.iter().filter(fits).find(like) {
                    Some(e) => format!(
                        "make it by `cargo run -p deepsim-eval -- baseline mv {}`",
                        quote(&e.path)
                    ),
                    None => "no experiment file here names this layer".to_owned(),
                };
                format!("no record of Mahendran & Vedaldi at {layer}; {how}")
            }
            Missing::Others { what, fits, alike } => {
                let all: Vec<String> = files
                    .iter()
                    .filter(|e| fits(e) && (!alike || like(e)))
                    .map(|e| shown(&e.path))
                    .collect();
                if all.is_empty() {
                    format!("{what}, and no experiment file here makes one")
                } else {
                    format!("{what}; train {}", all.join(", "))
                }
            }
        }
    }
}

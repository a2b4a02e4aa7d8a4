//! `attributes`: visual attribute vectors of autoencoders.

use std::collections::BTreeSet;
use std::path::PathBuf;

use deepsim_eval::EvalError;
use deepsim_eval::analysis::attributes;
use deepsim_eval::error::WhileRunning as _;
use deepsim_eval::run::loaded::Loaded;
use deepsim_eval::show::format::Format;
use deepsim_eval::show::sheet::{Sheet, images};
use deepsim_experiment::{Consent, device};

use super::print::{Result, at_least_one, file_name, put, run_name, warn, wrote};

/// Visual attribute vectors of autoencoders: glasses on, glasses off.
#[derive(clap::Args)]
#[command(after_help = "\
Example, after `cargo xtask reproduce --only faces-vaegan` (trains, minutes):
  cargo run -p deepsim-eval -- attributes runs/faces-vaegan \\
      --labels data/labels/orl.csv

A vector is the mean code of the training images with an attribute minus that
of those without it. The sheet shows held-out images, their reconstructions,
and what the vector does to them. A linear probe says how well the attribute
can be read from codes, and whether it can be read from the changed images.

Labels are CelebA's list_attr_celeba.txt, LFW's lfw_attributes.txt, or a CSV
file with the header `name,ATTRIBUTE,...` and 1, 0 or nothing for each image,
whose names end as in the dataset.")]
pub struct Attributes {
    /// Run directories of autoencoders.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file of attributes.
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Attributes to ask for, all if left out. Repeatable.
    #[arg(long, value_name = "NAME")]
    attribute: Vec<String>,
    /// How many times the vector is added.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "X",
        allow_negative_numbers = true
    )]
    strength: f64,
    /// Training images and held-out images to encode, at most.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    images: usize,
    /// Held-out images of either kind on a sheet.
    #[arg(long, default_value_t = 8, value_name = "N")]
    show: usize,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// How the numbers are printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Folder for the sheets, one PNG for each run and attribute.
    #[arg(long, value_name = "DIR", default_value = "attributes")]
    out: PathBuf,
}

impl super::run::Run for Attributes {
    fn run(self, consent: &Consent) -> Result<()> {
        at_least_one("--show", self.show)?;
        at_least_one("--images", self.images)?;
        if !self.strength.is_finite() {
            return Err(EvalError::usage(
                "--strength",
                self.strength,
                "must be a number",
            ));
        }
        let labels = deepsim_data::Attributes::read(&self.labels)?;
        let names = if self.attribute.is_empty() {
            labels.names().to_vec()
        } else {
            self.attribute.clone()
        };
        for name in &names {
            labels.index(name)?;
        }
        let device = device::choose(&self.device)?;
        let (mut all, mut taken) = (Vec::new(), BTreeSet::new());
        for path in &self.runs {
            let run = Loaded::open(path, consent, device)?;
            run.train_data()?;
            run.test_data()?;
            let asker = attributes::Asker::new(&run, &labels, self.images).while_running()?;
            for name in &names {
                let found = match asker.ask(&labels, name, self.strength, self.show) {
                    Ok(found) => found,
                    // Of all attributes of a file, those that say something; one that was asked for by name is an error.
                    Err(error @ EvalError::OneClass { .. }) if self.attribute.is_empty() => {
                        warn(error.to_string());
                        continue;
                    }
                    Err(error) => return Err(error).while_running(),
                };
                let run_name = run_name(&run);
                let mut sheet = Sheet::new(&format!(
                    "{name}, {} times its vector ({run_name}, held-out images)",
                    self.strength
                ));
                for (rows, change) in [(&found.added, "added"), (&found.removed, "taken away")] {
                    let Some([photos, before, after]) = rows else {
                        continue;
                    };
                    sheet.row("photo", images(photos)?);
                    sheet.row("reconstruction", images(before)?);
                    sheet.row(&format!("{name} {change}"), images(after)?);
                }
                if found.added.is_some() || found.removed.is_some() {
                    let file = format!(
                        "{}.png",
                        file_name(&format!("{run_name}-{name}"), &mut taken)
                    );
                    wrote(&self.out.join(file), &sheet.png()?)?;
                } else {
                    warn(format!(
                        "no held-out image is labelled for `{name}`: no sheet"
                    ));
                }
                all.push(found.numbers);
            }
        }
        put(&all, attributes::text, "attributes", self.format, &self.out)
    }
}

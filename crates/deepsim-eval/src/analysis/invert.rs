//! Any image through encoder and generator.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use deepsim_data::Framing;
use deepsim_experiment::evaluate::decode;
use deepsim_experiment::{Clip, Consent, ExperimentError, sheet};
use serde::Serialize;
use tch::Device;

use crate::error::{Result, WhileRunning as _};
use crate::measure::photos;
use crate::run::ready::Ready;
use crate::show::output;

/// What was made of one image.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inverted {
    /// The image.
    pub image: String,
    /// The reconstruction alone.
    pub inverted: String,
    /// Original image above reconstruction.
    pub pair: String,
}

/// Inverts images with a generator and its encoder and writes PNGs into `out`. They are made square by `frame`, without
/// it as the run's own were.
///
/// # Errors
/// Features that were recorded elsewhere; images that cannot be read (all of them are opened before anything is written), or
/// files that cannot be written.
pub fn invert(
    ready: &Ready,
    paths: &[PathBuf],
    frame: Option<Framing>,
    out: &Path,
    consent: &Consent,
    device: Device,
) -> Result<Vec<Inverted>> {
    let encoder = ready.encoder(consent, device)?;
    let framing = frame.map_or_else(|| ready.framing(), Ok)?;
    let crops = photos::from_files(paths, framing, &ready.experiment.augment(), device)?;
    std::fs::create_dir_all(out)
        .map_err(ExperimentError::io(out))
        .while_running()?;
    let _guard = tch::no_grad_guard();
    let mut taken = BTreeSet::new();
    let mut made = Vec::new();
    for (i, path) in (0..).zip(paths) {
        let x = crops.f_narrow(0, i, 1)?;
        let features = encoder.features(&x).while_running()?;
        let y = decode(&ready.generator, &features, Clip::Displayable).while_running()?;
        let stem = unused(&mut taken, path);
        let (alone, pair) = (
            out.join(format!("{stem}-inverted.png")),
            out.join(format!("{stem}-pair.png")),
        );
        for (file, png) in [
            (&alone, sheet::single(&y)?),
            (&pair, sheet::rows(&[&x, &y])?),
        ] {
            output::write(file, &png.bytes)?;
        }
        made.push(Inverted {
            image: path.display().to_string(),
            inverted: alone.display().to_string(),
            pair: pair.display().to_string(),
        });
    }
    Ok(made)
}

/// The file's name without its ending; numbered where two images share it.
fn unused(taken: &mut BTreeSet<String>, path: &Path) -> String {
    let stem = path
        .file_stem()
        .map_or("photo".to_owned(), |s| s.to_string_lossy().into_owned());
    output::unused(&stem, taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_one_name_do_not_overwrite_each_other() {
        let mut taken = BTreeSet::new();
        assert_eq!(unused(&mut taken, Path::new("a/x.jpg")), "x");
        assert_eq!(unused(&mut taken, Path::new("b/x.png")), "x-2");
    }
}

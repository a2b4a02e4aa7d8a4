//! Samples of a variational autoencoder's prior (the paper's Fig. 8), and numbers of the model.

use std::ops::Range;
use std::path::Path;

use deepsim_data::spread;
use deepsim_experiment::evaluate::{decode, held_out_of};
use deepsim_experiment::measure::{self, batches, in_batches};
use deepsim_experiment::source::Source;
use deepsim_experiment::{Clip, Experiment};
use deepsim_nets::init::{derive_seed, seeded};
use deepsim_nets::metrics::{frechet_distance, gradient_energy, kernel_distance};
use deepsim_nets::{Code, FeatureNet, NetKind, Reduction, Tap};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::metrics::features_at;
use crate::measure::photos::{LeftOut, encoded, picked};
use crate::run::loaded::{HeldOutImages, Loaded};
use crate::show::format::{columns, number};

/// The network in whose features samples and images are set against each other.
pub const REFERENCE_NET: NetKind = NetKind::EfficientNetLite0;
/// Where its features are taken.
pub const REFERENCE_TAP: Tap = Tap::Pooled;
/// Its weights in the folder of the metrics' weights.
pub const REFERENCE_FILE: &str = "efficientnet-lite0.safetensors";

/// What is said of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Numbers {
    /// Run directory.
    pub run: String,
    /// What images are compared in: `NET:TAP`, or `pixels` without a feature loss.
    pub comparator: String,
    /// Values of a code.
    pub latent: i64,
    /// Divergence of the codes' distribution from the prior, nats a held-out image.
    pub kl: f64,
    /// Normalised error of held-out reconstructions, percent.
    pub image_error: f64,
    /// Gradient energy of held-out reconstructions, relative to the original images'.
    pub reconstruction_energy: f64,
    /// Gradient energy of the samples, relative to held-out images'.
    pub sample_energy: f64,
    /// Samples that were drawn.
    pub samples: usize,
    /// Held-out images that they are set against.
    pub photos: usize,
    /// Kernel distance of samples and held-out images in EfficientNet-Lite0's pooled features;
    /// none without its weights.
    pub kernel_distance: Option<f64>,
    /// The same of training images and held-out ones: what a perfect model could reach.
    pub kernel_distance_of_photos: Option<f64>,
    /// Fréchet distance of as many samples as there are held-out images.
    pub frechet_distance: Option<f64>,
    /// The same of as many training images.
    pub frechet_distance_of_photos: Option<f64>,
    /// Held-out images whose pairs `image_error` is relative to.
    pub n_pairs_from: usize,
}

/// Whether a run has a prior to draw from.
pub fn has_prior(experiment: &Experiment) -> bool {
    matches!(experiment.config.latent, Some(l) if l.code == Code::Gaussian)
}

/// What a run's images were compared in.
pub fn compared_in(experiment: &Experiment) -> String {
    let names = experiment.compared_in(crate::run::catalog::net_name);
    if names.is_empty() {
        "pixels".to_owned()
    } else {
        names
    }
}

/// `count` images `[count,3,S,S]` in Caffe units, clipped to 0–255, from codes of a standard normal
/// distribution. The first ones are the same for any count.
///
/// # Errors
/// A run without such a prior.
pub fn draw(run: &Loaded, count: usize, seed: u64) -> Result<Tensor> {
    let Some(latent) = run
        .experiment
        .config
        .latent
        .filter(|_| has_prior(&run.experiment))
    else {
        return Err(EvalError::NoPrior {
            run: run.path.clone(),
        });
    };
    in_batches(count, |batch| draw_some(run, latent.size, batch, seed))
}

/// Some of the images of [`draw`].
fn draw_some(run: &Loaded, size: i64, range: Range<usize>, seed: u64) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    // Each image has a code of its own, wherever batches begin.
    let mut codes = Vec::new();
    for i in range {
        let seed = derive_seed(seed, "prior", i as u64);
        codes.push(seeded(seed, || Tensor::f_randn([1, size], options))?);
    }
    let codes = Tensor::f_cat(&codes, 0)?.f_to_device(run.device)?;
    Ok(decode(&run.generator, &codes, Clip::Displayable)?)
}

/// The reference network, if its weights are in `folder`.
///
/// # Errors
/// Damaged weights.
pub fn reference(folder: &Path, device: Device) -> Result<Option<FeatureNet>> {
    let path = folder.join(REFERENCE_FILE);
    if path.is_file() {
        Ok(Some(FeatureNet::load(
            REFERENCE_NET,
            REFERENCE_TAP,
            &path,
            device,
        )?))
    } else {
        Ok(None)
    }
}

/// Whether the reference network had a part in the training: what is trained for tells nothing of it.
fn took_part(experiment: &Experiment) -> bool {
    let is_reference = |source: &Source| source.network().is_some_and(|n| n.net == REFERENCE_NET);
    experiment.sources().any(|(_, source)| is_reference(source))
}

/// Everything that is said of a run and `count` samples of [`draw`]. There are no distances by a reference network that had a part
/// in the training.
///
/// # Errors
/// Unreadable images, or fewer than two.
pub fn measure(
    run: &Loaded,
    of: &HeldOutImages,
    (count, seed): (usize, u64),
    reference: Option<&FeatureNet>,
) -> Result<Numbers> {
    let _guard = tch::no_grad_guard();
    let Some(encoder) = run.perception.learned() else {
        return Err(EvalError::NoPrior {
            run: run.path.clone(),
        });
    };
    let train = run.train_data()?;
    let reference = reference.filter(|_| !took_part(&run.experiment));
    let features = |x: &Tensor| -> Result<Option<Tensor>> {
        let found = reference.map(|net| features_at(net, REFERENCE_TAP, x));
        found.transpose()
    };
    let size = encoder.spec().size as f64;
    let (mut kl, mut energy, mut real) = (0.0, 0.0, Vec::new());
    let held = held_out_of(
        of.images(),
        &run.perception,
        &run.generator,
        Clip::Displayable,
        |batch| -> Result<()> {
            let x = &batch.images;
            kl += match encoder.posterior(x)?.kl(Reduction::Paper)? {
                Some(term) => term.f_double_value(&[])?,
                None => f64::NAN,
            };
            // Eq. 8 leaves the constant out.
            kl -= 0.5 * size * x.size()[0] as f64;
            energy += gradient_energy(x)?;
            real.extend(features(x)?);
            Ok(())
        },
    )?;
    let n = of.chosen.len();
    let (mut of_samples, mut made) = (0.0, Vec::new());
    for batch in batches(count) {
        let part = draw_some(run, encoder.spec().size, batch, seed)?;
        of_samples += gradient_energy(&part)?;
        made.extend(features(&part)?);
    }
    let mut numbers = Numbers {
        run: run.path.display().to_string(),
        comparator: compared_in(&run.experiment),
        latent: encoder.spec().size,
        kl: kl / n as f64,
        image_error: held.image_error,
        reconstruction_energy: held.gradient_energy,
        sample_energy: (of_samples / count as f64) / (energy / n as f64).max(f64::MIN_POSITIVE),
        samples: count,
        photos: n,
        n_pairs_from: held.norm.pairs_from,
        ..Numbers::default()
    };
    if let Some(net) = reference {
        let training = |n: usize| -> Result<Tensor> {
            let known = measure::chosen(&train, n);
            let features = |_: &[usize], x: &Tensor| features_at(net, REFERENCE_TAP, x);
            let none = LeftOut::none();
            Ok(encoded(&train, &known, &of.augment, none, run.device, features)?.1)
        };
        let (made, real) = (Tensor::f_cat(&made, 0)?, Tensor::f_cat(&real, 0)?);
        let known = training(count)?;
        // Equally many of all three: the Fréchet distance hangs on numbers.
        let equal = n.min(count).min(train.len());
        let few =
            |x: &Tensor| -> Result<Tensor> { picked(x, &spread(equal, x.size()[0] as usize)) };
        let real_few = few(&real)?;
        numbers.kernel_distance = Some(kernel_distance(&made, &real)?);
        numbers.kernel_distance_of_photos = Some(kernel_distance(&known, &real)?);
        numbers.frechet_distance = Some(frechet_distance(&few(&made)?, &real_few)?);
        numbers.frechet_distance_of_photos = Some(frechet_distance(&training(equal)?, &real_few)?);
    }
    Ok(numbers)
}

/// Numbers of several runs as a table.
pub fn text(rows: &[Numbers]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let mut cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                crate::run::catalog::name(&r.run),
                r.comparator.clone(),
                format!("{:.1}", r.kl),
                format!("{:.1}", r.image_error),
                format!("{:.2}", r.reconstruction_energy),
                format!("{:.2}", r.sample_energy),
                number(r.kernel_distance, 3),
                number(r.frechet_distance, 1),
            ]
        })
        .collect();
    let mut of_photos = vec!["training photos".to_owned()];
    of_photos.extend(vec!["-".to_owned(); 5]);
    of_photos.push(number(first.kernel_distance_of_photos, 3));
    of_photos.push(number(first.frechet_distance_of_photos, 1));
    cells.push(of_photos);
    let head = [
        "run",
        "compared in",
        "KL",
        "image %",
        "sharp",
        "samples",
        "kernel",
        "Fréchet",
    ];
    format!(
        "{}KL: nats a photo. image %, sharp: error and gradient energy of {} held-out reconstructions; \
         samples: gradient energy of {} samples (1: as photos).\nkernel, Fréchet: distance of samples and \
         held-out photos in EfficientNet-Lite0's pooled features (not FID); the last line is that of \
         training photos.\n",
        columns(&head, &cells),
        first.photos,
        first.samples
    )
}

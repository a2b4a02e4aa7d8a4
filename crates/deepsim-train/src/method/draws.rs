//! Everything random in an iteration, drawn before it begins.

use deepsim_experiment::config::DiscriminatorPasses;
use deepsim_nets::init::seeded;
use deepsim_nets::loss::TermKind;
use deepsim_nets::{AugmentDraws, Code, LatentSpec};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::method::plan::Plan;
use crate::method::slice::Slice;
use crate::state::State;

/// What an iteration draws for its images, in fp32. It depends on the seed and on the global batch alone: a micro-batch
/// takes its images' part ([`Draws::of`]), so that its place in the batch decides, and not who computes it.
///
/// They are drawn in the order of the fields. Masks of dropout are those of
/// [`Discriminator::draw_masks`](deepsim_nets::Discriminator::draw_masks).
#[derive(Debug, Default)]
pub struct Draws {
    /// ε of Gaussian codes `[N,size]`, of an encoder that learns.
    pub codes: Option<Tensor>,
    /// The generator's noise.
    pub noise: Option<Tensor>,
    /// The noise of the second images, for diversity.
    pub other_noise: Option<Tensor>,
    /// Codes from VAE/GAN's prior `[N,size]`.
    pub prior: Option<Tensor>,
    /// Masks of the discriminator's pass over real images; in VAE/GAN of its one pass over real images, images of codes
    /// (not in a GAN) and images of the prior, one behind the other.
    pub on_real: Vec<Tensor>,
    /// Masks of its pass over generated images.
    pub on_generated: Vec<Tensor>,
    /// Masks of the updated discriminator's pass over generated images.
    pub updated: Vec<Tensor>,
    /// How the images of these three passes are augmented, in their order.
    pub augmented: [AugmentDraws; 3],
    /// What is added to the features in front of the generator, of their shape.
    pub disturbed: Option<Tensor>,
    /// Sets of images that the pass of `on_real` takes.
    sets: i64,
}

impl Draws {
    /// For the iteration after the state's step, on a global batch of so many images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn new(
        state: &State,
        plan: &Plan,
        images: i64,
        device: Device,
        seed: i64,
    ) -> Result<Draws> {
        seeded(seed, || match plan.vaegan {
            Some(_) => Draws::of_vaegan(state, plan, images, device),
            None => Draws::of_paper(state, plan, images, device),
        })
    }

    fn of_paper(state: &State, plan: &Plan, images: i64, device: Device) -> Result<Draws> {
        let codes = codes(state, images, device)?;
        let noise = state.generator.draw_noise(images, device)?;
        let other_noise = match plan.diversity {
            Some(_) => state.generator.draw_noise(images, device)?,
            None => None,
        };
        let masks = || masks(state, plan, images, device);
        Ok(Draws {
            codes,
            noise,
            other_noise,
            prior: None,
            on_real: masks()?,
            on_generated: masks()?,
            updated: match plan.passes {
                DiscriminatorPasses::Paper => masks()?,
                DiscriminatorPasses::One => Vec::new(),
            },
            augmented: augmented(state, plan, images, device)?,
            disturbed: disturbed(state, plan, images, device)?,
            sets: 1,
        })
    }

    fn of_vaegan(state: &State, plan: &Plan, images: i64, device: Device) -> Result<Draws> {
        let (codes, sets) = if plan.reconstructs(state.step) {
            (codes(state, images, device)?, 3)
        } else {
            (None, 2)
        };
        let spec = state.learned().map(|encoder| encoder.spec());
        let prior = spec.map(|spec| normal(spec, images, device)).transpose()?;
        Ok(Draws {
            codes,
            prior,
            on_real: masks(state, plan, sets * images, device)?,
            sets,
            ..Draws::default()
        })
    }

    /// A micro-batch's part.
    ///
    /// # Errors
    /// Draws for fewer images.
    pub fn of(&self, slice: Slice) -> Result<Draws> {
        let part = |drawn: &Tensor| slice.of(drawn.shallow_clone());
        let in_sets = |mask: &Tensor| -> Result<Tensor> {
            if slice.is_whole() {
                return Ok(mask.shallow_clone());
            }
            let sets = mask.f_chunk(self.sets, 0)?;
            let parts = sets.iter().map(part).collect::<Result<Vec<Tensor>>>()?;
            Ok(Tensor::f_cat(&parts, 0)?)
        };
        self.map(part, in_sets)
    }

    /// Other tensors in place of all; those of sets by `in_sets`.
    pub(crate) fn map(
        &self,
        part: impl Fn(&Tensor) -> Result<Tensor>,
        in_sets: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Draws> {
        let some = |drawn: &Option<Tensor>| drawn.as_ref().map(&part).transpose();
        let all = |masks: &[Tensor]| masks.iter().map(&part).collect::<Result<Vec<Tensor>>>();
        let [real, generated, updated] = &self.augmented;
        Ok(Draws {
            codes: some(&self.codes)?,
            noise: some(&self.noise)?,
            other_noise: some(&self.other_noise)?,
            prior: some(&self.prior)?,
            on_real: self.on_real.iter().map(in_sets).collect::<Result<_>>()?,
            on_generated: all(&self.on_generated)?,
            updated: all(&self.updated)?,
            augmented: [real.map(&part)?, generated.map(&part)?, updated.map(&part)?],
            disturbed: some(&self.disturbed)?,
            sets: self.sets,
        })
    }

    /// All tensors, in the order of the fields.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let Draws {
            codes,
            noise,
            other_noise,
            prior,
            on_real,
            on_generated,
            updated,
            augmented,
            disturbed,
            sets: _,
        } = self;
        let drawn = [codes, noise, other_noise, prior].into_iter().flatten();
        let masks = [on_real, on_generated, updated].into_iter().flatten();
        let augmented = augmented.iter().flat_map(AugmentDraws::tensors);
        let all = drawn.chain(masks).chain(augmented);
        all.chain(disturbed.as_ref()).collect()
    }
}

/// ε of the codes of an encoder that learns, where they are Gaussian.
fn codes(state: &State, images: i64, device: Device) -> Result<Option<Tensor>> {
    let spec = state.learned().map(|encoder| encoder.spec());
    let gaussian = spec.filter(|spec| spec.code == Code::Gaussian);
    gaussian
        .map(|spec| normal(spec, images, device))
        .transpose()
}

fn normal(spec: LatentSpec, images: i64, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_randn([images, spec.size], (Kind::Float, device))?)
}

/// Masks of a pass of the discriminator, where it is asked.
fn masks(state: &State, plan: &Plan, images: i64, device: Device) -> Result<Vec<Tensor>> {
    let asked = plan.weights(state.step).weight(TermKind::Adversarial) > 0.0;
    match &state.discriminator {
        Some(discriminator) if asked || plan.vaegan.is_some() => {
            Ok(discriminator.draw_masks(images, device)?)
        }
        _ => Ok(Vec::new()),
    }
}

/// How the images of the discriminator's passes are augmented, where they are.
fn augmented(state: &State, plan: &Plan, images: i64, device: Device) -> Result<[AugmentDraws; 3]> {
    let side = state.discriminator.as_ref().map(|d| d.spec().crop);
    let (Some(augment), Some(side)) = (plan.adversary.augment, side) else {
        return Ok(Default::default());
    };
    let draw = || augment.draw(images, side, device);
    Ok([draw()?, draw()?, draw()?])
}

/// Noise for the features, where there is some: N(0, σ²), with σ uniform from 0 to its largest value for each image, as
/// representation autoencoders have it (`bytetriper/RAE`).
fn disturbed(state: &State, plan: &Plan, images: i64, device: Device) -> Result<Option<Tensor>> {
    if plan.feature_noise <= 0.0 {
        return Ok(None);
    }
    let sizes = state.generator.spec().input.sizes();
    feature_noise(images, &sizes, plan.feature_noise, device).map(Some)
}

fn feature_noise(images: i64, sizes: &[i64], largest: f64, device: Device) -> Result<Tensor> {
    let options = (Kind::Float, device);
    let shape = [&[images][..], sizes].concat();
    let mut each = vec![images];
    each.resize(shape.len(), 1);
    let deviations = Tensor::f_rand(each, options)?.f_mul_scalar(largest)?;
    Ok(Tensor::f_randn(shape, options)?.f_mul(&deviations)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_s_masks_are_those_of_its_images_in_each_set() {
        let rows = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu)).view([n, 1]);
        let draws = Draws {
            codes: Some(rows(4)),
            on_real: vec![rows(12)],
            on_generated: vec![rows(4)],
            sets: 3,
            ..Draws::default()
        };
        let slice = Slice {
            from: 1,
            len: 2,
            global: 4,
        };
        let part = draws.of(slice).unwrap();
        let values = |t: &Tensor| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap();
        assert_eq!(values(&part.codes.unwrap()), [1.0, 2.0]);
        assert_eq!(values(&part.on_real[0]), [1.0, 2.0, 5.0, 6.0, 9.0, 10.0]);
        assert_eq!(values(&part.on_generated[0]), [1.0, 2.0]);
        assert!(part.noise.is_none());
    }

    #[test]
    fn each_image_s_features_have_noise_of_a_deviation_of_their_own() {
        let draw = || feature_noise(16, &[50, 4, 4], 0.8, Device::Cpu);
        let noise = seeded(1, draw).unwrap();
        assert_eq!(noise.size(), [16, 50, 4, 4]);
        let found = noise
            .flatten(1, -1)
            .square()
            .mean_dim([1i64].as_slice(), false, Kind::Float);
        let found = Vec::<f32>::try_from(found.sqrt()).unwrap();
        let (least, most) = (
            found.iter().copied().fold(1.0, f32::min),
            found.iter().copied().fold(0.0, f32::max),
        );
        assert!(least < 0.3 && (0.5..0.85).contains(&most), "{found:?}");
    }
}

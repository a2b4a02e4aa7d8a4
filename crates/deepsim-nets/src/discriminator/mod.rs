//! Discriminators: real image or generated. DeePSiM's, VAE/GAN's, that of patches, and heads on a frozen network.

mod heads;
mod spec;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, Tensor};

use crate::error::{NetError, Result};
use crate::features::FeatureNet;
use crate::images;
use crate::layers::layer::{self, Layer, Pass};
use crate::layers::mode::Mode;
use crate::layers::op::Op;
use crate::layers::shape::Extent;
use crate::layers::tap::Tap;
use crate::layers::trained;
use crate::params::{NamedTensors, Params, check_exact};
use crate::precision::widened;
use heads::Head;
pub use spec::{Architecture, DiscriminatorSpec, DiscriminatorTap, FeatureBranch, PatchNorm, Taps};

/// A discriminator with its weights.
#[derive(Debug)]
pub struct Discriminator {
    spec: DiscriminatorSpec,
    trunk: Vec<Layer>,
    branch: Vec<Layer>,
    head: Vec<Layer>,
    on_network: Option<OnNetwork>,
    params: Params,
}

/// Heads, and the frozen network that they stand on.
#[derive(Debug)]
struct OnNetwork {
    network: FeatureNet,
    taps: Vec<Tap>,
    heads: Vec<Head>,
}

impl Discriminator {
    /// With random weights, as the authors of each architecture begin; biases are zero.
    ///
    /// # Errors
    /// As [`DiscriminatorSpec::validate`].
    pub fn new(spec: DiscriminatorSpec, seed: u64, device: Device) -> Result<Discriminator> {
        Discriminator::with_network(spec, None, seed, device)
    }

    /// As [`Discriminator::new`]; where it has heads they stand on this frozen network, or on one with random weights. Its
    /// weights are among the discriminator's, and never train: what is saved is whole.
    ///
    /// # Errors
    /// As [`Discriminator::new`], and another network than the spec's.
    pub fn with_network(
        spec: DiscriminatorSpec,
        network: Option<FeatureNet>,
        seed: u64,
        device: Device,
    ) -> Result<Discriminator> {
        let parts = spec.parts()?;
        let mut params = Params::default();
        let mut build = |ops: &[Op]| -> Result<Vec<Layer>> {
            let initial = |op: &Op| spec.initial(op);
            let (layers, weights) = trained::build("discriminator", ops, initial, seed, device)?;
            params.extend(weights);
            Ok(layers)
        };
        let [trunk, branch, head] = [
            build(&parts.trunk)?,
            build(&parts.branch)?,
            build(&parts.head)?,
        ];
        let on_network = OnNetwork::new(&spec, network, seed, device)?;
        let on_network = on_network.map(|(built, weights)| {
            params.extend(weights);
            built
        });
        Ok(Discriminator {
            trunk,
            branch,
            head,
            on_network,
            params,
            spec,
        })
    }

    /// With weights from a file, whose names and shapes are compared with the spec's before anything is built: a file
    /// may ask for more than any memory holds.
    ///
    /// # Errors
    /// [`NetError::Mismatch`] listing every difference; a spec that cannot be built.
    pub fn from_values(
        spec: DiscriminatorSpec,
        values: &NamedTensors,
        what: &str,
        origin: &str,
        device: Device,
    ) -> Result<Discriminator> {
        check_exact(values, &spec.shapes()?, what, origin)?;
        let mut discriminator = Discriminator::new(spec, 0, device)?;
        discriminator.params.copy_from(values, what, origin)?;
        Ok(discriminator)
    }

    /// What it was built from.
    pub fn spec(&self) -> &DiscriminatorSpec {
        &self.spec
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Freezes the weights, for a discriminator that only serves as comparator. Gradients still pass
    /// through to the images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn freeze(&mut self) -> Result<()> {
        for p in self.params.iter() {
            let _ = p.tensor.f_set_requires_grad(false)?;
        }
        Ok(())
    }

    /// Its weights, to load values into.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Images `[N,3,H,W]` in Caffe units → features at a tap, `[N,C,H,W]`, or `[N,256]` at
    /// Dpool5. Nothing drops out before any of them; `mode` matters for batch normalisation alone.
    ///
    /// # Errors
    /// Images too small, or a layer that this discriminator does not have.
    pub fn features(&self, caffe: &Tensor, tap: DiscriminatorTap, mode: Mode) -> Result<Tensor> {
        self.spec.has(tap)?;
        let at = self
            .trunk
            .iter()
            .position(|l| l.op().key() == Some(tap.name()));
        let end = match (at, self.spec.architecture) {
            (None, _) => self.trunk.len(),
            // Behind its rectifier.
            (Some(at), Architecture::DeePSiM) => at + 2,
            // Before normalisation and rectifier.
            (Some(at), _) => at + 1,
        };
        self.through(&self.trunk[..end], caffe, mode)
    }

    /// Images in Caffe units, through the first layers of the trunk.
    fn through(&self, layers: &[Layer], caffe: &Tensor, mode: Mode) -> Result<Tensor> {
        if let Architecture::VaeGan { .. } | Architecture::PatchGan { .. } = self.spec.architecture
        {
            images::check_size("the discriminator", caffe, self.spec.crop)?;
            return layer::forward(
                layers,
                &images::caffe_to_unit(caffe)?,
                Pass::with_libtorch_fc(mode),
            );
        }
        images::check_images("the discriminator", caffe)?;
        let size = caffe.size();
        let mut x = Extent::image(size[2], size[3]);
        for layer in layers {
            let op = layer.op();
            x = op.output(x).ok_or_else(|| NetError::TooSmall {
                what: "the discriminator".to_owned(),
                height: size[2],
                width: size[3],
                layer: op.key().unwrap_or("Dpool5").to_owned(),
            })?;
        }
        layer::forward(layers, caffe, Pass::with_libtorch_fc(mode))
    }

    /// Images `[N,3,H,W]` in Caffe units → logits `[N,2]`, index 0 = real, or of patches `[N,1,h,w]`, or of heads
    /// `[N,1,positions]` ([`scores`](crate::loss::scores) reads both). `features` are the inverted features of the real images, needed exactly
    /// where the spec has the branch.
    ///
    /// # Errors
    /// Images too small, or features missing or superfluous.
    pub fn forward(&self, caffe: &Tensor, features: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        self.forward_with(caffe, features, mode, None)
    }

    /// One step of the power iterations of spectral normalisation, where there are some: once for each update, before its
    /// passes. (PyTorch's does one for each pass in training: as many where real and generated images pass as one batch.)
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn iterate_spectral(&self) -> Result<()> {
        let layers = [&self.trunk, &self.branch, &self.head];
        layers.into_iter().flatten().try_for_each(Layer::iterate)?;
        let mut heads = self.on_network.iter().flat_map(|on| &on.heads);
        heads.try_for_each(Head::iterate)
    }

    /// Masks of dropout for so many images, drawn out of libtorch's generator of random numbers in the order in which a
    /// pass in training uses them: `[N,width]` each, 0 or 1/(1 − p). None where nothing drops out.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn draw_masks(&self, images: i64, device: Device) -> Result<Vec<Tensor>> {
        let behind = |layers: &[Layer], channels| {
            let ops = layers.iter().map(Layer::op);
            ops.fold(channels, |channels, op| op.channels(channels))
        };
        let mut width = behind(&self.trunk, 3) + behind(&self.branch, 0);
        let mut masks = Vec::new();
        for op in self.head.iter().map(Layer::op) {
            if let Op::Dropout(p) = *op {
                let mut mask = Tensor::f_empty([images, width], (Kind::Float, device))?;
                let _ = mask.f_bernoulli_float_(1.0 - p)?.f_div_scalar_(1.0 - p)?;
                masks.push(mask);
            }
            width = op.channels(width);
        }
        Ok(masks)
    }

    /// As [`Discriminator::forward`], with the masks that [`Discriminator::draw_masks`] has drawn for these images.
    ///
    /// # Errors
    /// As [`Discriminator::forward`], and too few masks, or masks of other images.
    pub fn forward_with(
        &self,
        caffe: &Tensor,
        features: Option<&Tensor>,
        mode: Mode,
        masks: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        // Before anything is computed, which could change running statistics.
        let features = match (self.spec.features, features) {
            (FeatureBranch::Off, None) => None,
            (FeatureBranch::Features(length), Some(f)) => {
                let n = caffe.size().first().copied().unwrap_or_default();
                // What is made in bf16 meets weights in fp32 where a pass has no autocast, such as R1's.
                let flat = widened(&f.f_flatten(1, -1)?)?;
                if flat.size() != [n, length] {
                    return Err(NetError::InputShape {
                        what: "the discriminator's feature branch".to_owned(),
                        expected: format!("[{n},{length}]"),
                        got: f.size(),
                    });
                }
                Some(flat)
            }
            (FeatureBranch::Off, Some(_)) => {
                return Err(NetError::Spec(
                    "this discriminator has no feature branch".into(),
                ));
            }
            (FeatureBranch::Features(_), None) => {
                return Err(NetError::Spec(
                    "this discriminator has a feature branch and needs the features".into(),
                ));
            }
        };
        if let Some(on_network) = &self.on_network {
            return on_network.forward(caffe);
        }
        let mut x = self.through(&self.trunk, caffe, mode)?;
        if let Some(flat) = features {
            let f = layer::forward(&self.branch, &flat, Pass::with_libtorch_fc(mode))?;
            x = Tensor::f_cat(&[x, widened(&f)?], 1)?; // [N,768]
        }
        match self.spec.architecture {
            Architecture::DeePSiM => {
                let pass = Pass {
                    masks,
                    ..Pass::with_libtorch_fc(mode)
                };
                layer::forward(&self.head, &x, pass)
            }
            // One logit says the same as two of which one is 0.
            Architecture::VaeGan { .. } => Ok(Tensor::f_cat(&[&x, &x.f_zeros_like()?], 1)?),
            Architecture::PatchGan { .. } | Architecture::Heads { .. } => widened(&x),
        }
    }
}

impl OnNetwork {
    /// What a spec with heads needs, and its weights by name; none for the others.
    fn new(
        spec: &DiscriminatorSpec,
        network: Option<FeatureNet>,
        seed: u64,
        device: Device,
    ) -> Result<Option<(OnNetwork, Params)>> {
        let Architecture::Heads { net, taps } = spec.architecture else {
            return match network {
                None => Ok(None),
                Some(_) => Err(NetError::Spec(
                    "this discriminator stands on no network".into(),
                )),
            };
        };
        let network = match network {
            Some(network) if network.net().name == net.name => network,
            Some(other) => {
                let reason = format!(
                    "the discriminator stands on {net}, not on {}",
                    other.net().name
                );
                return Err(NetError::Spec(reason));
            }
            None => FeatureNet::random(net, taps.deepest(net)?, seed, device)?,
        };
        let (mut heads, mut params) = (Vec::new(), Params::default());
        for (at, channels) in spec.heads()?.into_iter().enumerate() {
            let (head, weights) = Head::new(at, channels, seed, device)?;
            heads.push(head);
            params.extend(weights);
        }
        params.extend(network.frozen(spec::NETWORK)?);
        let taps = taps.iter().collect();
        let built = OnNetwork {
            network,
            taps,
            heads,
        };
        Ok(Some((built, params)))
    }

    /// Images in Caffe units → the logits of all heads, one behind the other, `[N,1,positions]`.
    fn forward(&self, caffe: &Tensor) -> Result<Tensor> {
        let maps = self.network.features(caffe, &self.taps)?;
        let heads = self.heads.iter().zip(&maps);
        let logits = heads.map(|(head, map)| head.forward(map));
        Ok(Tensor::f_cat(&logits.collect::<Result<Vec<_>>>()?, 2)?)
    }
}

//! The registry's entry of a feature network, and the units of its images.

use tch::Tensor;

use crate::error::{NetError, Result};
use crate::images;
use crate::layers::op::{FcMap, Op, Row};
use crate::layers::shape::{Extent, FeatureShape};
use crate::layers::tap::{Tap, Tokens};

/// Units of the images that a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// BGR 0–255 minus Caffe's mean.
    Caffe,
    /// BGR 0–255 minus VideoNet's mean.
    VideoNet,
    /// RGB 0–1 minus ImageNet's mean, divided by its deviation.
    ImageNet,
    /// RGB 0–255 as (x − 127)/128.
    EfficientNet,
    /// RGB 0–1 minus CLIP's mean, divided by its deviation.
    Clip,
    /// RGB in −1…1.
    MinusOneToOne,
}

impl Units {
    /// Converts images `[N,3,H,W]` from Caffe units to these units.
    ///
    /// # Errors
    /// A tensor that is not `[N,3,H,W]`.
    pub fn of_caffe(self, caffe: &Tensor) -> Result<Tensor> {
        match self {
            Units::Caffe => Ok(caffe.shallow_clone()),
            Units::VideoNet => images::caffe_to_videonet(caffe),
            Units::ImageNet => images::caffe_to_torchvision(caffe),
            Units::EfficientNet => images::caffe_to_efficientnet(caffe),
            Units::Clip => images::caffe_to_clip(caffe),
            Units::MinusOneToOne => images::caffe_to_unit(caffe),
        }
    }
}

/// The registry's entry of a feature network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// In experiment files.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// The whole architecture.
    pub table: &'static [Row],
    /// What the first fully connected layer makes of the map below it.
    pub fc_map: FcMap,
    /// Units of its images.
    pub units: Units,
    /// The family of the network. Networks of one family have similar features, so a metric that uses one
    /// is not independent of a training that used another.
    pub family: &'static str,
    /// Where its weights are from.
    pub obtain: &'static str,
    /// The kind of import of `deepsim-weights`, and the file to import; none where set-up does it.
    pub import: Option<(&'static str, &'static str)>,
    /// Tensors that its authors' files hold beside its own and that it does not use: names, with `*` for any
    /// beginning or any end. They are left aside; every other tensor must be the network's.
    pub aside: &'static [&'static str],
}

impl Net {
    /// The whole architecture.
    pub fn table(&self) -> &'static [Row] {
        self.table
    }

    /// Whether a tensor is left aside.
    pub fn leaves_aside(&self, tensor: &str) -> bool {
        self.aside.iter().any(|pattern| {
            if let Some(end) = pattern.strip_prefix('*') {
                tensor.ends_with(end)
            } else if let Some(beginning) = pattern.strip_suffix('*') {
                tensor.starts_with(beginning)
            } else {
                tensor == *pattern
            }
        })
    }

    /// Whether its layers have tokens.
    pub fn has_tokens(&self) -> bool {
        self.table.iter().any(|(_, op)| op.tokens().is_some())
    }

    /// Whether its weights can learn: batch normalisation here is part of the convolutions.
    pub fn can_learn(&self) -> bool {
        !self.table.iter().any(|(_, op)| op.is_folded())
    }

    /// The row of a layer.
    ///
    /// # Errors
    /// [`NetError::NoSuchTap`], such as `norm1` of torchvision's AlexNet.
    pub(crate) fn row(&self, layer: &str) -> Result<usize> {
        let place = self.table.iter().position(|(t, _)| t.name() == layer);
        place.ok_or_else(|| NetError::NoSuchTap {
            net: self.name.to_owned(),
            tap: layer.to_owned(),
            known: self.table.iter().map(|(t, _)| t.name()).collect(),
        })
    }

    /// The rows up to and including the deepest layer of `tap`.
    ///
    /// # Errors
    /// [`NetError::NoSuchTap`].
    pub fn rows_to(&self, tap: Tap) -> Result<&'static [Row]> {
        let mut deepest = 0;
        for layer in tap.layers() {
            deepest = deepest.max(self.row(layer.name)?);
        }
        Ok(&self.table[..=deepest])
    }

    /// Shape of the features `[channels, height, width]` (or `[length]`) at `tap` for images
    /// of `height`×`width` pixels.
    ///
    /// # Errors
    /// An unknown tap, images too small or not of whole patches (or, at fully connected layers of CaffeNet and VideoNet,
    /// of another size than the layer takes), all tokens where there are none, or layers of several shapes in one tap.
    pub fn shape_at(&self, tap: Tap, height: i64, width: i64) -> Result<Vec<i64>> {
        let mut found: Option<(&str, Vec<i64>)> = None;
        for layer in tap.layers() {
            let shape = self.shape_of(layer.name, tap.tokens(), height, width)?;
            match &found {
                None => found = Some((layer.name, shape)),
                Some((_, first)) if *first == shape => {}
                Some((name, first)) => {
                    return Err(NetError::Spec(format!(
                        "`{tap}` combines features of different shapes: {first:?} at `{name}`, {shape:?} at `{}`",
                        layer.name
                    )));
                }
            }
        }
        Ok(found.map(|(_, shape)| shape).unwrap_or_default())
    }

    fn shape_of(&self, layer: &str, tokens: Tokens, height: i64, width: i64) -> Result<Vec<i64>> {
        let rows = &self.table[..=self.row(layer)?];
        let mut x = Extent::image(height, width);
        for (at, op) in rows {
            if let (Op::Fc { .. }, FcMap::Exactly(side)) = (op, self.fc_map)
                && !x.flat
                && (x.height, x.width) != (side, side)
            {
                return Err(NetError::FcSize {
                    net: self.name.to_owned(),
                    layer: at.name(),
                    height,
                    width,
                    got_h: x.height,
                    got_w: x.width,
                });
            }
            if let Some(vit) = op.tokens()
                && vit.patches(height, width).is_none()
            {
                return Err(NetError::Patches {
                    net: self.name.to_owned(),
                    patch: vit.patch,
                    height,
                    width,
                    below: (height.min(width) / vit.patch).max(1) * vit.patch,
                });
            }
            x = op.output(x).ok_or_else(|| NetError::TooSmall {
                what: format!("{} up to `{layer}`", self.name),
                height,
                width,
                layer: at.name().to_owned(),
            })?;
        }
        let vit = rows.last().and_then(|(_, op)| op.tokens());
        match (tokens, vit) {
            (Tokens::All, Some(vit)) => Ok(vec![x.channels, vit.leading() + x.height * x.width, 1]),
            (Tokens::All, None) => Err(NetError::Spec(format!(
                "{}'s `{layer}` has no tokens: leave out tokens = \"all\", or take a block of a transformer",
                self.name
            ))),
            (Tokens::Patches, _) if x.flat => Ok(vec![x.channels]),
            (Tokens::Patches, _) => Ok(vec![x.channels, x.height, x.width]),
        }
    }

    /// Shape of the features at `tap` for square crops. All tokens of a transformer are a vector: a generator begins
    /// with square maps.
    ///
    /// # Errors
    /// As [`Net::shape_at`].
    pub fn feature_shape(&self, tap: Tap, crop: i64) -> Result<FeatureShape> {
        Ok(match self.shape_at(tap, crop, crop)?.as_slice() {
            [c, h, w] if h == w => FeatureShape::Map {
                channels: *c,
                size: *h,
            },
            other => FeatureShape::Vector(other.iter().product()),
        })
    }

    /// The rows below the fully connected layers (up to pool5, or EfficientNet's `pooled`), whose
    /// weights may come without the others.
    pub fn convolutional_rows(&self) -> &'static [Row] {
        let end = self
            .table
            .iter()
            .position(|(_, op)| matches!(op, Op::Fc { .. }))
            .unwrap_or(self.table.len());
        &self.table[..end]
    }
}

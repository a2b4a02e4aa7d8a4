//! The losses as a library: compares two images by their features and by MS-SSIM. For each loss it
//! prints the value and the norm of the gradient with regard to the second image.
//!
//! ```text
//! cargo run -p deepsim-nets --example loss                                    # synthetic images
//! cargo run -p deepsim-nets --example loss -- A.png B.png [WEIGHTS.safetensors]
//! ```
//!
//! The images are PNG, JPEG or BMP files of one size, at least 64 pixels a side. The features are pool5
//! of torchvision's AlexNet. Without a weights file (`weights/alexnet-lpips.safetensors` after set-up) the
//! network has random weights.

use std::error::Error;
use std::path::Path;

use deepsim_nets::init::seeded;
use deepsim_nets::loss::terms::{feature_loss, image_loss};
use deepsim_nets::{FeatureNet, NetError, NetKind, PixelDistance, Reduction, Tap, images};
use tch::{Device, Kind, Tensor, vision};

/// An image file as RGB, 0–255, `[1,3,H,W]`.
fn read(path: &str) -> Result<Tensor, Box<dyn Error>> {
    let image = vision::image::load(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(image.f_unsqueeze(0)?)
}

/// Two images of 128 pixels a side: random colours, and the same colours under noise.
fn synthetic() -> Result<(Tensor, Tensor), NetError> {
    let options = (Kind::Float, Device::Cpu);
    let draw = || -> Result<(Tensor, Tensor), NetError> {
        let target = Tensor::f_rand([1, 3, 128, 128], options)?.f_mul_scalar(255.0)?;
        let noise = Tensor::f_randn([1, 3, 128, 128], options)?.f_mul_scalar(20.0)?;
        let image = target.f_add(&noise)?;
        Ok((target, image))
    };
    seeded(1, draw)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, image) = match arguments.as_slice() {
        [] => synthetic()?,
        [target, image] | [target, image, _] => (read(target)?, read(image)?),
        _ => return Err("give two images, and perhaps a weights file".into()),
    };
    let (kind, tap, device) = (NetKind::AlexNet, Tap::Pool5, Device::Cpu);
    let net = match arguments.get(2) {
        Some(weights) => FeatureNet::load(kind, tap, Path::new(weights), device)?,
        None => FeatureNet::random(kind, tap, 1, device)?,
    };

    // Networks and losses take Caffe units. Gradients lead to the image, not to the network's weights.
    let target = images::rgb_to_caffe(&target)?;
    let image = images::rgb_to_caffe(&image)?.f_set_requires_grad(true)?;
    let wanted = net.features(&target, &[tap])?;
    let found = net.features(&image, &[tap])?;

    let by_features = feature_loss(&found[0], &wanted[0], Reduction::Caffe)?;
    let by_pixels = image_loss(PixelDistance::MsSsim, &image, &target, Reduction::Caffe)?;
    for (name, loss) in [("feature loss", by_features), ("1 - MS-SSIM", by_pixels)] {
        let gradients = Tensor::f_run_backward(&[&loss], &[&image], false, false)?;
        let norm = gradients[0].f_norm()?.f_double_value(&[])?;
        let value = loss.f_double_value(&[])?;
        println!("{name:12}  {value:12.6}  gradient norm {norm:.6}");
    }
    Ok(())
}

//! Trying a module before anything is written: whether it serves for every batch that will come.

use tch::{Device, Kind, Tensor};

use super::{Script, Through};
use crate::error::{ExperimentError, Result};
use crate::features_file::finite;

/// Batches that every module is tried on.
const ALWAYS: [i64; 3] = [2, 1, 3];
/// Most that two passes over the same images may differ, relative (L2). Equal passes differ by the order of sums on a
/// GPU, 1e-6; a dropout of one value in a thousand makes 4e-2.
const SAME: f64 = 1e-3;
/// Most that an image's features may depend on the rest of its batch, relative (L2). Other algorithms for other batch
/// sizes make 1e-6, and 1e-2 in half precision or with scales that are taken over a batch (int8).
const ALONE: f64 = 5e-2;

impl Script {
    /// Tries the module on batches of the experiment's size: of one, two and three images.
    ///
    /// # Errors
    /// Whatever is wrong with what it makes of them: what [`Script::features`] refuses, NaN, features that change from
    /// one pass to the next or depend on the other images of the batch, no gradients where they are needed.
    pub fn probe(&self, crop: i64, through: Through, device: Device) -> Result<()> {
        self.try_batches(&ALWAYS, crop, through, device)
    }

    /// The same with batches of these sizes.
    ///
    /// # Errors
    /// As for [`Script::probe`].
    pub fn try_batches(
        &self,
        sizes: &[i64],
        crop: i64,
        through: Through,
        device: Device,
    ) -> Result<()> {
        let mut first: Option<Tensor> = None;
        for &n in sizes {
            let made = self
                .try_batch(n, crop, through, device)
                .map_err(|e| self.at_size(n, sizes, e))?;
            // Each batch begins with the same image.
            let made = made.f_narrow(0, 0, 1)?;
            match &first {
                None => first = Some(made),
                Some(first) => self.compare(first, &made)?,
            }
        }
        Ok(())
    }

    fn try_batch(&self, n: i64, crop: i64, through: Through, device: Device) -> Result<Tensor> {
        let gradients = through == Through::Gradients;
        let x = images(n, crop, device)?.f_set_requires_grad(gradients)?;
        let y = self.features(&x)?;
        if !finite(&y)? {
            return Err(self.refuse("its output holds NaN or infinity".to_owned()));
        }
        if gradients {
            self.try_gradient(&x, &y)?;
        }
        let y = y.f_detach()?;
        let again = self.features(&x)?.f_detach()?;
        if distance(&y, &again)? > SAME {
            return Err(self.refuse(
                "its output changes from one pass to the next over the same images: it was traced in training mode, \
                 with dropout, or draws random numbers; call net.eval() before torch.jit.trace"
                    .to_owned(),
            ));
        }
        Ok(y)
    }

    /// A comparator is learned through.
    fn try_gradient(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let none = "its output does not depend on the image through gradients (detached, rounded or computed \
                    under no_grad): it cannot be a comparator";
        if !y.requires_grad() {
            return Err(self.refuse(none.to_owned()));
        }
        let sum = y.f_square()?.f_sum(Kind::Float)?;
        let found = Tensor::f_run_backward(&[sum], &[x], false, false)
            .map_err(|e| super::failure(&self.source.file, &e))?;
        match found.first() {
            Some(g) if !g.defined() => Err(self.refuse(none.to_owned())),
            Some(g) if !finite(g)? => {
                Err(self.refuse("the gradient of its output holds NaN or infinity".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn compare(&self, alone: &Tensor, among: &Tensor) -> Result<()> {
        if alone.size() == among.size() && distance(alone, among)? <= ALONE {
            return Ok(());
        }
        Err(self.refuse(
            "the features of an image depend on the other images of its batch: it was traced in training mode, with \
             batch normalisation; call net.eval() before torch.jit.trace"
                .to_owned(),
        ))
    }

    /// Says which batch size it was that a module failed at, where others went well.
    fn at_size(&self, n: i64, sizes: &[i64], error: ExperimentError) -> ExperimentError {
        let reason = match error {
            ExperimentError::Script { reason, .. } if sizes.first() != Some(&n) => reason,
            other => return other,
        };
        self.refuse(format!(
            "it fails with a batch of {n}, though not with {}: {reason}; take sizes from the input (x.shape[0], \
             x.flatten(1)), or use torch.jit.script",
            sizes.first().copied().unwrap_or_default()
        ))
    }
}

/// Grey levels that differ from place to place, in images of different brightness and contrast.
fn images(n: i64, crop: i64, device: Device) -> Result<Tensor> {
    let count = n * 3 * crop * crop;
    let each: Vec<f32> = (0..n).map(|i| [0.9, 0.2, 0.5][(i % 3) as usize]).collect();
    let contrast = Tensor::f_from_slice(&each)?.f_to_device(device)?;
    let levels = Tensor::f_arange(count, (Kind::Float, device))?.f_remainder(251.0)?;
    let centred = levels.f_sub_scalar(125.0)?.f_view([n, 3, crop, crop])?;
    let contrast = contrast.f_view([n, 1, 1, 1])?;
    let brightness = contrast.f_sub_scalar(0.5)?.f_mul_scalar(20.0)?;
    Ok(centred.f_mul(&contrast)?.f_add(&brightness)?)
}

/// Relative distance, L2. 0 where both are zero.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let far = a.f_sub(b)?.f_norm()?.f_double_value(&[])?;
    let size = a.f_norm()?.f_double_value(&[])?;
    Ok(if far == 0.0 { 0.0 } else { far / size })
}

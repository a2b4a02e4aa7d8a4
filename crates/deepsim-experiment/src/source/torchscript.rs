//! Anybody's TorchScript module.

use std::fmt;
use std::path::Path;

use deepsim_nets::FeatureShape;
use tch::{Device, Tensor};

use super::kind::{FeatureSource, Features, Given, KindInfo, Role, shape, without_shape};
use crate::config::SourceTap;
use crate::config::check::Complaint;
use crate::consent::Allowed;
use crate::error::{ExperimentError, Result};
use crate::script::source::ScriptSource;
use crate::script::{Script, Through};

pub(super) const INFO: KindInfo = KindInfo {
    encoder: Ok(&["tap", "weights", "units", "trust_code", "shape"]),
    comparator: Ok(&["tap", "weights", "units", "trust_code", "distance"]),
};

pub(super) fn parse(given: &Given<'_>) -> std::result::Result<ScriptSource, Complaint> {
    let section = given.section;
    let file = section.weights.as_deref().filter(|f| !f.is_empty());
    let file =
        file.ok_or_else(|| given.missing("weights", "the file that torch.jit.save wrote"))?;
    let output = match &section.tap {
        Some(SourceTap::Output(tap)) => tap.clone(),
        Some(other) => {
            let reason = "of a TorchScript module is `output`, `output.N` or `output.KEY`";
            return Err(given.bad("tap", format!("{reason}, not `{other}`")));
        }
        None => return Err(given.missing("tap", "`output`, `output.N` or `output.KEY`")),
    };
    let units = section.units.ok_or_else(|| {
        let list =
            "\"rgb-0-255\", \"rgb-0-1\", \"rgb-imagenet\" or \"bgr-caffe\": what the module takes";
        given.missing("units", list)
    })?;
    if section.trust_code == Some(false) {
        return Err(given.bad(
            "trust_code",
            "is false: this module is not to be run; remove the line, and allow it by --trust-code, if \
             you trust its maker",
        ));
    }
    let shape = match given.role {
        Role::Encoder => Some(shape(section).map_err(|reason| given.bad("shape", reason))?),
        Role::Comparator => None,
    };
    Ok(ScriptSource {
        file: file.into(),
        output,
        units,
        shape,
    })
}

impl fmt::Display for ScriptSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "torchscript:{}", self.output)
    }
}

impl FeatureSource for ScriptSource {
    fn file(&self) -> Option<(&'static str, &Path)> {
        Some(("weights", &self.file))
    }

    fn help(&self, _: &Path) -> String {
        "  save it from PyTorch by `torch.jit.save(torch.jit.trace(net, x), FILE)`".to_owned()
    }

    fn feature_shape(&self, _: i64) -> std::result::Result<FeatureShape, Complaint> {
        self.shape.ok_or_else(|| without_shape(self))
    }

    fn open(&self, module: Option<Allowed>, device: Device) -> Result<Box<dyn Features>> {
        let module = module.ok_or_else(|| ExperimentError::Script {
            path: self.file.clone(),
            reason: "was not allowed to run".to_owned(),
        })?;
        Ok(Box::new(Script::load(module, device)?))
    }
}

impl Features for Script {
    fn features(&self, caffe: &Tensor) -> Result<Tensor> {
        Script::features(self, caffe)
    }

    fn probe(&self, crop: i64, through: Through, device: Device) -> Result<()> {
        Script::probe(self, crop, through, device)
    }

    fn try_batches(
        &self,
        sizes: &[i64],
        crop: i64,
        through: Through,
        device: Device,
    ) -> Result<()> {
        Script::try_batches(self, sizes, crop, through, device)
    }

    /// Of the bytes that were loaded.
    fn own_hash(&self) -> Option<&str> {
        Some(self.hash())
    }
}

//! What the rows of a figure are made of.

use deepsim_experiment::Consent;
use tch::{Device, Tensor};

use super::plan::{Panel, Plan};
use crate::error::Result;
use crate::run::loaded::Loaded;

/// What the rows of a figure are made of.
pub(super) struct Material<'a> {
    pub plan: &'a Plan,
    /// Images that were asked for.
    pub count: usize,
    /// Held-out images: at most as many.
    pub chosen: &'a [usize],
    /// Their names.
    pub names: &'a [String],
    /// They, Caffe units.
    pub photos: &'a Tensor,
    pub consent: &'a Consent,
    pub device: Device,
}

impl Material<'_> {
    /// The run of a panel.
    pub(super) fn open(&self, panel: &Panel) -> Result<Loaded> {
        Loaded::open(&panel.entry.path, self.consent, self.device)
    }
}

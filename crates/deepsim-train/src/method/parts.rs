//! What micro-batches find, one after the other: added up at once, or kept apart until all are added in their order.

use deepsim_nets::{ProcessGroup, sum_in_order};
use tch::{Kind, Tensor};

use crate::error::Result;
use crate::method::sums::Sums;

/// What this process's micro-batches have found in a phase.
#[derive(Debug)]
pub struct Parts {
    found: Vec<Sums>,
    apart: bool,
}

impl Parts {
    /// Nothing yet. `apart`: other processes have micro-batches before these, to which these must be added one by one.
    pub(crate) fn new(apart: bool) -> Parts {
        Parts {
            found: Vec::new(),
            apart,
        }
    }

    /// What the next micro-batch has found.
    ///
    /// # Errors
    /// Gradients of a network of another shape.
    pub fn add(&mut self, found: Sums) -> Result<()> {
        match self.found.last_mut() {
            Some(sums) if !self.apart => sums.add_(found),
            _ => {
                self.found.push(found);
                Ok(())
            }
        }
    }

    /// All of this process, added in their order.
    ///
    /// # Errors
    /// As [`Parts::add`].
    pub(crate) fn added(self) -> Result<Sums> {
        let mut found = self.found.into_iter();
        let mut sums = found.next().unwrap_or_default();
        for next in found {
            sums.add_(next)?;
        }
        Ok(sums)
    }

    /// Those of all processes of a group, which have as many each, added one after the other in the order of all.
    ///
    /// # Errors
    /// A process that does not answer, or is gone.
    pub(crate) fn added_in_order(mut self, group: &ProcessGroup) -> Result<Sums> {
        let _guard = tch::no_grad_guard();
        // Numbers of one kind lie one behind the other: what is rounded is rounded as in one process.
        for kind in [Kind::Float, Kind::Double] {
            let mut rows = Vec::new();
            for sums in &self.found {
                let of_kind = sums.all().into_iter().filter(|t| t.kind() == kind);
                let flat = of_kind
                    .map(|tensor| tensor.f_reshape([-1]))
                    .collect::<std::result::Result<Vec<Tensor>, _>>()?;
                if !flat.is_empty() {
                    rows.push(Tensor::f_cat(&flat, 0)?);
                }
            }
            if rows.is_empty() {
                continue;
            }
            let flat = sum_in_order(Some(group), &rows)?;
            drop(rows);
            // The first ones become the sums.
            let Some(first) = self.found.first_mut() else {
                continue;
            };
            let mut at = 0;
            first.replace(|own| {
                if own.kind() != kind {
                    return Ok(own.shallow_clone());
                }
                let values = i64::try_from(own.numel()).unwrap_or(i64::MAX);
                let part = flat.f_narrow(0, at, values)?;
                at += values;
                Ok(part.f_view(own.size().as_slice())?)
            })?;
        }
        Ok(self.found.into_iter().next().unwrap_or_default())
    }
}

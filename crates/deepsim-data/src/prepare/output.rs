//! From what stands at the output to what is made there: written beside it, published whole, or found there already.

use std::path::Path;

use super::event::{Event, Flow, Outcome, go_on};
use super::stage::{self, Published, Stage};
use super::standing::Standing;
use crate::error::DataError;

/// What to do about an output that holds another dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace it once the new one is complete.
    Replace,
}

/// What is made at an output.
pub(crate) trait Product {
    /// Bytes that it will take, about.
    fn bytes(&self) -> u64;

    /// Compares what stands at the output with it.
    fn standing(
        &self,
        out: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Standing, DataError>;

    /// Writes it into an empty directory and brings it to the disk.
    fn write(
        &self,
        stage: &Path,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Outcome, DataError>;
}

/// Makes a product at an output, unless it is there already.
pub(crate) fn make(
    product: &dyn Product,
    out: &Path,
    existing: Existing,
    events: &mut dyn FnMut(Event) -> Flow,
) -> Result<Outcome, DataError> {
    let out = stage::locate(out)?;
    let agreed = match product.standing(&out, events)? {
        Standing::Free => None,
        Standing::UpToDate { images, turned } => return Ok(Outcome::UpToDate { images, turned }),
        Standing::Other { difference } => match existing {
            Existing::Keep => {
                return Err(DataError::OtherDataset {
                    path: out,
                    difference,
                });
            }
            Existing::Replace => Some(stage::Replaceable::check(&out)?),
        },
    };
    for leftover in stage::leftovers(&out) {
        go_on(events(Event::Leftover(leftover)))?;
    }
    let stage = Stage::create(&out, product.bytes())?;
    go_on(events(Event::Started(stage.path().into())))?;
    let outcome = product.write(stage.path(), events)?;
    go_on(events(Event::Publishing))?;
    match stage.publish(&out, agreed.as_ref())? {
        Published::Done => Ok(outcome),
        Published::Kept(old) => {
            events(Event::Leftover(old));
            Ok(outcome)
        }
        // another process may have written the same meanwhile, which is as good
        Published::Occupied => match product.standing(&out, events) {
            Ok(Standing::UpToDate { images, turned }) => Ok(Outcome::UpToDate { images, turned }),
            _ => Err(DataError::OutputAppeared { path: out }),
        },
    }
}

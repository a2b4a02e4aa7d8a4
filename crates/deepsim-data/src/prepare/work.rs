//! Decoding a source's images, many at a time, and handing them on in the source's order.

use std::ops::Range;

use rayon::prelude::*;

use super::event::{Event, Flow, go_on};
use super::plan::Plan;
use crate::error::DataError;
use crate::folder::{Shape, squared};
use crate::manifest::{Part, Store};
use crate::shards::encode;
use crate::source::{Entry, Listing};
use crate::terminal::path as shown;

/// Photos decoded between two progress reports and checks for an interrupt.
const CHUNK: usize = 64;

/// The images that one process prepares.
pub(crate) struct Work<'a> {
    pub listing: &'a Listing,
    pub plan: &'a Plan,
    /// The side of every image of the source.
    pub sides: &'a [Option<Part>],
    /// Which of the source's images.
    pub range: Range<usize>,
}

/// What is known of an image of the source before it is decoded.
pub(crate) struct Image<'a> {
    pub path: &'a str,
    /// Length of its file.
    pub size: u64,
    pub side: Option<Part>,
    pub label: Option<String>,
}

/// A photo ready to be stored.
pub(crate) struct Ready {
    /// Digest of the pixels, by which duplicates are known.
    pub pixels: blake3::Hash,
    pub stored: Vec<u8>,
    /// Digest of the stored bytes.
    pub checksum: blake3::Hash,
    pub oriented: bool,
}

/// Where images go, one after the other in the source's order.
pub(crate) trait Sink {
    /// Takes a photo. Gives the path of the one that is kept instead, where one came before with the same pixels.
    fn take(&mut self, image: &Image<'_>, ready: &Ready) -> Result<Option<String>, DataError>;

    /// Takes note of a corrupt photo.
    fn leave_out(&mut self, image: &Image<'_>, reason: String) -> Result<(), DataError>;
}

impl Work<'_> {
    /// Does it. Gives a line for each corrupt photo that was left out.
    pub fn run(
        &self,
        sink: &mut dyn Sink,
        events: &mut dyn FnMut(Event) -> Flow,
    ) -> Result<Vec<String>, DataError> {
        let total = self.range.len();
        let mut corrupt = Vec::new();
        for start in (0..total).step_by(CHUNK) {
            let end = (start + CHUNK).min(total);
            let first = self.range.start + start;
            let entries = &self.listing.entries[first..self.range.start + end];
            let chunk: Vec<Result<Ready, DataError>> = entries
                .par_iter()
                .map(|entry| ready(self.listing, self.plan, entry))
                .collect();
            let sides = &self.sides[first..];
            for ((entry, side), result) in entries.iter().zip(sides).zip(chunk) {
                let image = Image {
                    path: &entry.path,
                    size: entry.bytes,
                    side: *side,
                    label: self.listing.label(entry),
                };
                match result {
                    Ok(_) if corrupt.len() > self.plan.quarantine => {}
                    Ok(ready) => {
                        if let Some(of) = sink.take(&image, &ready)? {
                            let path = entry.path.clone();
                            go_on(events(Event::Duplicate { path, of }))?;
                        }
                    }
                    // all corrupt photos are to be named, so the walk goes on after the first
                    Err(DataError::BadImage { path, fault }) => {
                        let line = format!("{}: {fault}", shown(path));
                        corrupt.push(line.clone());
                        sink.leave_out(&image, fault.to_string())?;
                        go_on(events(Event::Corrupt(line)))?;
                    }
                    Err(error) => return Err(error),
                }
            }
            go_on(events(Event::Progress { done: end, total }))?;
        }
        if corrupt.len() > self.plan.quarantine {
            return Err(DataError::CorruptImages {
                images: corrupt,
                budget: self.plan.quarantine,
            });
        }
        Ok(corrupt)
    }
}

fn ready(listing: &Listing, plan: &Plan, entry: &Entry) -> Result<Ready, DataError> {
    let shape = Shape {
        size: plan.size,
        resize: plan.resize,
        window: plan.window,
        orientation: plan.orientation,
    };
    let squared = squared(listing, entry, shape)?;
    let pixels = blake3::hash(&squared.pixels);
    let stored = encode(squared.pixels, plan.store, plan.size)?;
    let checksum = match plan.store {
        // the stored bytes are the pixels
        Store::Raw => pixels,
        Store::Jpeg => blake3::hash(&stored),
    };
    Ok(Ready {
        pixels,
        stored,
        checksum,
        oriented: squared.oriented,
    })
}

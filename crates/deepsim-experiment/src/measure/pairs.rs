//! The normalisation: the mean distance over the pairs of the images, collected while they pass.

use std::fmt::Display;
use std::ops::Range;

use deepsim_data::spread;
use deepsim_nets::NetError;
use deepsim_nets::metrics::{mean_pair_distance, mean_pair_distance_in_blocks};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::pass::{Images, batches};
use crate::error::{ExperimentError, Result};
use crate::processes::{Like, Processes};
use crate::upload::upload;

/// Images whose pairs the normalisation is exactly measured over: all up to here, so many of more.
pub const PAIRS: usize = 2000;
/// Bytes that images, and as many that features may take in memory for the normalisation.
pub const ROOM: usize = 512 << 20;

/// What distances are divided by: N of the paper's Table 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    /// Mean distance between different images.
    pub image: f64,
    /// The same of their features; none where nothing here encodes an image.
    pub feature: Option<f64>,
    /// Images whose pairs it is the mean over.
    pub pairs_from: usize,
}

/// Features of images `[N,3,S,S]` in Caffe units.
pub type Encode<'a, E> = &'a dyn Fn(&Tensor) -> std::result::Result<Tensor, E>;

/// Rows of the normalisation from the bytes of images.
type Row<'a, E> = &'a dyn Fn(&Array4<u8>) -> std::result::Result<Tensor, E>;

/// What the normalisation is measured over, collected while the images pass. Of several processes the first one collects the
/// rows of all, and measures.
pub(super) struct Pairs<'a> {
    processes: &'a Processes,
    images: Images<'a>,
    room: usize,
    /// Places among the chosen images, ascending.
    places: Vec<usize>,
    pixels: Rows,
    features: Rows,
    /// What a row of features is like.
    like: Option<Like>,
}

/// Rows in memory, one for each image that counts.
enum Rows {
    /// None yet.
    Empty,
    /// `[places, length]`, filled from the top.
    Kept(Tensor),
    /// They would take too much room.
    Dropped,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(processes: &'a Processes, images: Images<'a>, room: usize) -> Pairs<'a> {
        Pairs {
            processes,
            images,
            room,
            places: spread(PAIRS, images.chosen.len()),
            pixels: Rows::Empty,
            features: Rows::Empty,
            like: None,
        }
    }

    /// Which of the places, counted from 0, are those of a range of the chosen images.
    fn within(&self, range: &Range<usize>) -> Range<usize> {
        let before = |end: usize| self.places.partition_point(|&place| place < end);
        before(range.start)..before(range.end)
    }

    /// A batch of the chosen images, which begins with that at place `from`.
    pub(super) fn add(
        &mut self,
        from: usize,
        bytes: &Array4<u8>,
        features: Option<&Tensor>,
    ) -> Result<()> {
        if self.like.is_none()
            && let Some(features) = features
        {
            self.like = Some(Like::of(&flat(features)?));
        }
        let counted = self.within(&(from..from + bytes.shape()[0]));
        if counted.is_empty() {
            return Ok(());
        }
        let here: Vec<i64> = self.places[counted.clone()]
            .iter()
            .map(|&place| (place - from) as i64)
            .collect();
        let (at, of) = (counted.start, self.places.len());
        if self.processes.leads() {
            let pixels = upload(bytes, self.images.device)?;
            self.pixels.put(&pixels, &here, at, of, self.room)?;
        }
        if let Some(features) = features {
            self.features.put(features, &here, at, of, self.room)?;
        }
        Ok(())
    }

    /// The normalisation, in all processes.
    pub(super) fn finish<E: From<ExperimentError> + Display>(
        mut self,
        encode: Option<Encode<'_, E>>,
    ) -> std::result::Result<Norm, E> {
        let (processes, pairs_from) = (self.processes, self.places.len());
        let collected = self.collect();
        let own = match collected {
            Err(error) => Err(E::from(error)),
            Ok(()) if processes.leads() => self.measured(encode).map(|found| vec![(0, found)]),
            Ok(()) => Ok(Vec::new()),
        };
        let found = processes.gathered(own, 1)?;
        match found.first().map(Vec::as_slice) {
            Some([image, feature @ ..]) => Ok(Norm {
                image: *image,
                feature: feature.first().copied(),
                pairs_from,
            }),
            _ => Err(E::from(ExperimentError::Peer(
                "it has sent no normalisation".to_owned(),
            ))),
        }
    }

    /// Brings the rows of all processes to the first one: features as they were computed, and pixels, which are read again.
    fn collect(&mut self) -> Result<()> {
        let processes = self.processes;
        if processes.size() == 1 {
            return Ok(());
        }
        let ranges: Vec<Range<usize>> = batches(self.images.chosen.len()).collect();
        let counted: Vec<Range<usize>> = ranges.iter().map(|range| self.within(range)).collect();
        let (of, room) = (self.places.len(), self.room);
        let like = self.like.take();
        let like = like.filter(|like| fits(like, of, room));
        // What the first process has needs no exchange.
        let rows: Vec<usize> = counted
            .iter()
            .enumerate()
            .map(|(batch, counted)| match processes.owner(batch) {
                0 => 0,
                _ => counted.len(),
            })
            .collect();
        let own = match &self.features {
            Rows::Kept(whole) => Some(whole.shallow_clone()),
            Rows::Empty | Rows::Dropped => None,
        };
        let mut all = own.as_ref().map(Tensor::shallow_clone);
        processes.each_part(
            like,
            &rows,
            |batch| match &own {
                Some(own) => {
                    let (first, length) = (counted[batch].start as i64, rows[batch] as i64);
                    Ok(own.f_narrow(0, first, length)?)
                }
                None => Ok(Tensor::new()),
            },
            |batch, part| {
                if processes.leads() && rows[batch] > 0 {
                    let first = counted[batch].start as i64;
                    all = Some(put(all.take(), &part, first, of as i64)?);
                }
                Ok(())
            },
        )?;
        if !processes.leads() {
            self.features = Rows::Empty;
            return Ok(());
        }
        if let Some(all) = all {
            self.features = Rows::Kept(all);
        }
        for (batch, counted) in counted.into_iter().enumerate() {
            let is_there = processes.is_own(batch) || counted.is_empty();
            if is_there || matches!(self.pixels, Rows::Dropped) {
                continue;
            }
            let bytes = self
                .images
                .read(&indices(self.images, &self.places[counted.clone()]))?;
            let pixels = upload(&bytes, self.images.device)?;
            let rows: Vec<i64> = (0..counted.len() as i64).collect();
            self.pixels.put(&pixels, &rows, counted.start, of, room)?;
        }
        Ok(())
    }

    /// The mean distance of the images, then of the features where there are any.
    fn measured<E: From<ExperimentError>>(
        self,
        encode: Option<Encode<'_, E>>,
    ) -> std::result::Result<Vec<f64>, E> {
        let Pairs {
            images,
            room,
            places,
            pixels,
            features,
            ..
        } = self;
        let n = places.len();
        // Rows of a range of places, in the batches of the pass.
        let rows = |range: Range<usize>, row: Row<'_, E>| -> std::result::Result<Tensor, E> {
            let chosen = indices(images, &places[range]);
            let mut whole = None;
            for batch in batches(chosen.len()) {
                let at = batch.start as i64;
                let part = flat(&row(&images.read(&chosen[batch])?)?)?;
                whole = Some(put(whole, &part, at, chosen.len() as i64)?);
            }
            whole.map_or_else(|| Ok(Tensor::new()), Ok)
        };
        // Distances of bytes are those of Caffe units, which are the same values with an offset.
        let image = match &pixels {
            Rows::Kept(rows) => mean_pair_distance(rows).map_err(ExperimentError::from)?,
            _ => mean_pair_distance_in_blocks(n, room, |range| {
                rows(range, &|bytes| Ok(upload(bytes, images.device)?)).map_err(Refused)
            })
            .map_err(|e| e.0)?,
        };
        drop(pixels);
        let feature = match (&features, encode) {
            (_, None) => None,
            (Rows::Kept(rows), _) => Some(mean_pair_distance(rows).map_err(ExperimentError::from)?),
            (_, Some(encode)) => Some(
                mean_pair_distance_in_blocks(n, room, |range| {
                    rows(range, &|bytes| encode(&images.caffe(bytes)?)).map_err(Refused)
                })
                .map_err(|e| e.0)?,
            ),
        };
        if image <= 0.0 || feature.is_some_and(|f| f <= 0.0) {
            return Err(E::from(NetError::AllAlike.into()));
        }
        let mut found = vec![image];
        found.extend(feature);
        Ok(found)
    }
}

/// Indices of the images at some places.
fn indices(images: Images<'_>, places: &[usize]) -> Vec<usize> {
    places.iter().map(|&place| images.chosen[place]).collect()
}

/// An error of the caller's kind, through which the metrics can give their own.
struct Refused<E>(E);

impl<E: From<ExperimentError>> From<NetError> for Refused<E> {
    fn from(e: NetError) -> Refused<E> {
        Refused(E::from(e.into()))
    }
}

impl Rows {
    /// Takes some rows of a batch into places from `at` on, `of` in all.
    fn put(
        &mut self,
        batch: &Tensor,
        rows: &[i64],
        at: usize,
        of: usize,
        room: usize,
    ) -> Result<()> {
        let batch = flat(batch)?;
        if !fits(&Like::of(&batch), of, room) {
            *self = Rows::Dropped;
            return Ok(());
        }
        let index = Tensor::f_from_slice(rows)?.f_to_device(batch.device())?;
        let part = batch.f_index_select(0, &index)?;
        let whole = match std::mem::replace(self, Rows::Empty) {
            Rows::Kept(whole) => Some(whole),
            _ => None,
        };
        *self = Rows::Kept(put(whole, &part, at as i64, of as i64)?);
        Ok(())
    }
}

/// Copies rows to their place among `of`, in a tensor that is made with the first ones.
fn put(whole: Option<Tensor>, part: &Tensor, at: i64, of: i64) -> Result<Tensor> {
    let whole = match whole {
        Some(whole) => whole,
        None => Tensor::f_empty([of, part.size()[1]], (part.kind(), part.device()))?,
    };
    let mut place = whole.f_narrow(0, at, part.size()[0])?;
    place.f_copy_(part)?;
    Ok(whole)
}

/// Whether so many rows have room.
fn fits(like: &Like, rows: usize, room: usize) -> bool {
    let length: i64 = like.shape.iter().product();
    let bytes = length as usize * like.kind.elt_size_in_bytes();
    bytes.saturating_mul(rows) <= room
}

fn flat(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_flatten(1, -1)?)
}

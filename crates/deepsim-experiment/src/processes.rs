//! Several processes that evaluate together: each computes some of the batches, and all get the results of all.
//!
//! Results cross from process to process as their bits, and are added up by each in the order of the batches, as one process
//! does: numbers are the same bits whatever the number of processes.
//!
//! All processes make the same exchanges in the same order. Most begin with [`Processes::together`]: a process that has
//! failed says so there, whichever exchange the others are at, and all of them fail. What may fail alone and be left out
//! ends with [`Processes::settled`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use deepsim_nets::{ProcessGroup, Rendezvous};
use tch::{Device, Kind, Tensor};

use crate::error::{ExperimentError, Result};
use crate::{exchange, rendezvous};

/// The processes of an evaluation.
#[derive(Debug)]
pub struct Processes {
    group: Option<ProcessGroup>,
    rank: usize,
    size: usize,
    /// Whether all know that one of them has failed, and none has gone on since.
    told: Cell<bool>,
    /// Whether an exchange has failed: there can be no other one.
    lost: Cell<bool>,
}

/// What the samples of a tensor are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Like {
    pub(crate) kind: Kind,
    /// The shape of a sample: the tensor is `[N, …these]`.
    pub(crate) shape: Vec<i64>,
}

/// Kinds of tensors that are exchanged, by their numbers.
const KINDS: [Kind; 4] = [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half];

impl Like {
    pub(crate) fn of(x: &Tensor) -> Like {
        Like {
            kind: x.kind(),
            shape: x.size().into_iter().skip(1).collect(),
        }
    }

    /// As numbers: the kind's, then the shape.
    fn numbers(&self) -> Result<Vec<i64>> {
        let kind = KINDS.iter().position(|kind| *kind == self.kind);
        let kind = kind.ok_or_else(|| {
            refused(format!(
                "values of kind {:?} cannot be exchanged: evaluate by one process",
                self.kind
            ))
        })?;
        let mut numbers = vec![number(kind)];
        numbers.extend_from_slice(&self.shape);
        Ok(numbers)
    }

    fn from_numbers(numbers: &[i64]) -> Option<Like> {
        let (kind, shape) = numbers.split_first()?;
        let kind = KINDS.get(usize::try_from(*kind).ok()?)?;
        Some(Like {
            kind: *kind,
            shape: shape.to_vec(),
        })
    }
}

impl Processes {
    /// One process.
    pub fn alone() -> Processes {
        Processes {
            group: None,
            rank: 0,
            size: 1,
            told: Cell::new(false),
            lost: Cell::new(false),
        }
    }

    /// Joins the others there, when all have come; waits for them at most for `patience`, and so in each exchange later.
    ///
    /// # Errors
    /// [`ExperimentError::Ranks`]: a port in use, a process that does not come or was told otherwise.
    pub fn join(at: &Rendezvous, patience: Duration) -> Result<Processes> {
        let group = rendezvous::meet(at, patience)?;
        Ok(Processes {
            rank: usize::try_from(group.rank()).unwrap_or_default(),
            size: usize::try_from(group.size()).unwrap_or(1).max(1),
            group: Some(group),
            ..Processes::alone()
        })
    }

    /// Whether this process, rank 0, prints and writes.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether a batch, counted from 0, is this process's.
    pub fn is_own(&self, batch: usize) -> bool {
        self.owner(batch) == self.rank
    }

    /// The process that a batch is dealt to.
    pub(crate) fn owner(&self, batch: usize) -> usize {
        batch % self.size
    }

    /// Checks that several processes can compute there.
    ///
    /// # Errors
    /// [`ExperimentError::Ranks`].
    pub fn check(&self, device: Device) -> Result<()> {
        if self.size == 1 || device == Device::Cpu {
            return Ok(());
        }
        Err(refused(
            "they compute on CPUs alone so far: take --device cpu".to_owned(),
        ))
    }

    /// Waits until all are here, and fails in all if one has failed.
    ///
    /// # Errors
    /// The own one; [`ExperimentError::Elsewhere`] with the message of the first process that has failed;
    /// [`ExperimentError::Peer`].
    pub fn together<T, E: From<ExperimentError> + Display>(
        &self,
        own: std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let Some(group) = self.group.as_ref().filter(|_| !self.told.get()) else {
            return own;
        };
        if self.lost.get() {
            let error = ExperimentError::Peer("an exchange has failed before".to_owned());
            return own.and_then(|_| Err(error.into()));
        }
        let failure = own.as_ref().err().map(ToString::to_string);
        match self.failed(group, failure) {
            Ok(None) => own,
            Ok(Some((rank, text))) => {
                own.and_then(|_| Err(ExperimentError::Elsewhere { rank, text }.into()))
            }
            // What is wrong here is what counts.
            Err(error) => own.and_then(|_| Err(error.into())),
        }
    }

    /// The end of a piece of work that all have done their part of. If it has failed in one it has failed in all. They go on
    /// to the next one, unless an error `ends` all that the process was asked for.
    ///
    /// # Errors
    /// As [`Processes::together`]: an error that ends everything, in all of them.
    pub fn settled<T, E: From<ExperimentError> + Display>(
        &self,
        own: std::result::Result<T, E>,
        ends: impl FnOnce(&E) -> bool,
    ) -> std::result::Result<std::result::Result<T, E>, E> {
        let own = self.together(own);
        self.told.set(false);
        let error = match own {
            Ok(value) => return Ok(Ok(value)),
            Err(error) => error,
        };
        let ends = ends(&error);
        let ends = match &self.group {
            None => ends,
            Some(_) if self.lost.get() => true,
            // Errors differ from process to process, and all must do the same.
            Some(group) => match self.heard(exchange::largest(group, [i64::from(ends)])) {
                Ok([most]) => most > 0,
                Err(_) => true,
            },
        };
        if ends { Err(error) } else { Ok(Err(error)) }
    }

    /// Checks that all were told the same: `facts` by name.
    ///
    /// # Errors
    /// [`ExperimentError::Ranks`] that names what is different here; otherwise as [`Processes::together`].
    pub fn agree<E: From<ExperimentError> + Display>(
        &self,
        facts: &BTreeMap<String, String>,
    ) -> std::result::Result<(), E> {
        self.together::<(), E>(Ok(()))?;
        let different = match &self.group {
            None => Ok(None),
            Some(group) => self.heard(exchange::difference(group, facts, "evaluate")),
        };
        let same = different.and_then(|words| words.map_or(Ok(()), |words| Err(refused(words))));
        self.together(same.map_err(E::from))
    }

    /// Numbers of `batches` batches, by the batch: of all processes from those of each. They are the same bits.
    ///
    /// # Errors
    /// As [`Processes::together`].
    pub fn gathered<E: From<ExperimentError> + Display>(
        &self,
        own: std::result::Result<Vec<(usize, Vec<f64>)>, E>,
        batches: usize,
    ) -> std::result::Result<Vec<Vec<f64>>, E> {
        let own = self.together(own)?;
        Ok(self.exchanged(own, batches)?)
    }

    /// Tensors of batches, `[rows, …]` with as many rows as `rows` says of each batch and all else alike: of all processes
    /// from those of each, in the order of the batches. They are the same bits.
    ///
    /// # Errors
    /// As [`Processes::together`]; [`ExperimentError::Ranks`] for kinds of numbers that do not cross.
    pub fn parts<E: From<ExperimentError> + Display>(
        &self,
        own: std::result::Result<Vec<(usize, Tensor)>, E>,
        rows: &[usize],
    ) -> std::result::Result<Vec<Tensor>, E> {
        let own = self.together(own)?;
        if self.group.is_none() {
            return Ok(own.into_iter().map(|(_, part)| part).collect());
        }
        let like = own.first().map(|(_, part)| Like::of(part));
        let mut own: BTreeMap<usize, Tensor> = own.into_iter().collect();
        let mut parts = Vec::with_capacity(rows.len());
        self.each_part(
            like,
            rows,
            |batch| {
                let part = own.remove(&batch);
                part.ok_or_else(|| refused(format!("nothing was made of batch {batch}")))
            },
            |_, part| {
                parts.push(part);
                Ok(())
            },
        )?;
        Ok(parts)
    }

    /// Hands every batch's rows to `take`, in the order of the batches: the own ones from `own`, those of others as they
    /// have them. `like` says what rows are like; rank 0's counts, and where it says nothing, nothing is exchanged. A batch
    /// without rows crosses without an exchange.
    pub(crate) fn each_part(
        &self,
        like: Option<Like>,
        rows: &[usize],
        mut own: impl FnMut(usize) -> Result<Tensor>,
        mut take: impl FnMut(usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let numbers = like.map_or_else(|| Ok(Vec::new()), |like| like.numbers())?;
        let numbers = self.heard(exchange::said_by_first(group, &numbers))?;
        let Some(like) = Like::from_numbers(&numbers) else {
            return Ok(());
        };
        for (batch, &rows) in rows.iter().enumerate() {
            let own = if self.is_own(batch) && rows > 0 {
                Some(own(batch)?)
            } else {
                None
            };
            let part = self.copied(group, own, &like, rows, self.owner(batch))?;
            take(batch, part)?;
        }
        Ok(())
    }

    /// A part of its owner in all processes.
    fn copied(
        &self,
        group: &ProcessGroup,
        own: Option<Tensor>,
        like: &Like,
        rows: usize,
        owner: usize,
    ) -> Result<Tensor> {
        let mut size = vec![number(rows)];
        size.extend_from_slice(&like.shape);
        // fp32 has all numbers of fp16, which groups do not know.
        let kind = match like.kind {
            Kind::Half => Kind::Float,
            kind => kind,
        };
        let values = match &own {
            Some(own) => own.f_detach()?.f_to_kind(kind)?.f_contiguous()?,
            None => Tensor::f_zeros(size.as_slice(), (kind, Device::Cpu))?,
        };
        if rows > 0 {
            let sent = group.broadcast(&values, number(owner));
            self.heard(sent.map_err(exchange::lost))?;
        }
        match own {
            Some(own) => Ok(own),
            None => Ok(values.f_to_kind(like.kind)?),
        }
    }

    /// Each row is one process's and zeros in the others. They are added up as integers that have the bits of the numbers: so
    /// a negative zero stays one, and a value that is not a number keeps its bits.
    fn exchanged(&self, own: Vec<(usize, Vec<f64>)>, batches: usize) -> Result<Vec<Vec<f64>>> {
        let Some(group) = self.group.as_ref().filter(|_| batches > 0) else {
            let mut all = vec![Vec::new(); batches];
            for (batch, values) in own {
                if let Some(row) = all.get_mut(batch) {
                    *row = values;
                }
            }
            return Ok(all);
        };
        let longest = own.iter().map(|(_, values)| values.len()).max();
        let longest = [number(longest.unwrap_or(0))];
        let [longest] = self.heard(exchange::largest(group, longest))?;
        // The length of a row stands before it.
        let width = usize::try_from(longest).unwrap_or_default() + 1;
        let mut flat = vec![0_i64; batches * width];
        for (batch, values) in &own {
            let row = flat.chunks_mut(width).nth(*batch).into_iter().flatten();
            let length = std::iter::once(number(values.len()));
            let bits = values
                .iter()
                .map(|value| i64::from_ne_bytes(value.to_ne_bytes()));
            for (place, bits) in row.zip(length.chain(bits)) {
                *place = bits;
            }
        }
        let tensor = Tensor::f_from_slice(&flat)?;
        self.heard(group.all_reduce(&tensor).map_err(exchange::lost))?;
        let flat = Vec::<i64>::try_from(&tensor)?;
        let row = |row: &[i64]| -> Vec<f64> {
            let Some((length, bits)) = row.split_first() else {
                return Vec::new();
            };
            let bits = bits.iter().take(usize::try_from(*length).unwrap_or(0));
            bits.map(|bits| f64::from_ne_bytes(bits.to_ne_bytes()))
                .collect()
        };
        Ok(flat.chunks(width).map(row).collect())
    }

    /// The failed process of the lowest rank and its message, where one has failed.
    fn failed(&self, group: &ProcessGroup, own: Option<String>) -> Result<Option<(usize, String)>> {
        // The largest is that of the lowest rank.
        let code = own.as_ref().map_or(0, |_| number(self.size - self.rank));
        let [most] = self.heard(exchange::largest(group, [code]))?;
        let most = usize::try_from(most).unwrap_or_default();
        if most == 0 {
            return Ok(None);
        }
        self.told.set(true);
        let rank = self.size.saturating_sub(most);
        let own = own.unwrap_or_default();
        let text = self.heard(exchange::bytes_of(group, number(rank), own.as_bytes()))?;
        Ok(Some((rank, String::from_utf8_lossy(&text).into_owned())))
    }

    /// What became of an exchange. After one that has failed there is none.
    fn heard<T>(&self, exchange: Result<T>) -> Result<T> {
        exchange.inspect_err(|_| self.lost.set(true))
    }
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn refused(reason: String) -> ExperimentError {
    ExperimentError::Ranks(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome<T> = std::result::Result<T, ExperimentError>;

    #[test]
    fn one_process_has_all_batches_and_keeps_its_errors() {
        let alone = Processes::alone();
        assert!(alone.leads() && (0..5).all(|batch| alone.is_own(batch)));
        let own: Outcome<_> = Ok(vec![(1, vec![-0.0, f64::NAN]), (0, vec![2.0])]);
        let rows = alone.gathered(own, 3).unwrap();
        assert_eq!(rows[0], [2.0]);
        assert!(rows[1][0].is_sign_negative() && rows[1][1].is_nan());
        assert!(rows[2].is_empty());
        let failed = || -> Outcome<()> { Err(ExperimentError::Interrupted) };
        assert!(alone.together(failed()).is_err());
        assert!(alone.settled(failed(), |_| true).is_err());
        assert!(alone.settled(failed(), |_| false).unwrap().is_err());
        alone.agree::<ExperimentError>(&BTreeMap::new()).unwrap();
    }

    #[test]
    fn what_samples_are_like_crosses_as_numbers() {
        let like = Like::of(&Tensor::zeros([2, 3, 5], (Kind::Half, Device::Cpu)));
        assert_eq!(like.shape, [3, 5]);
        let numbers = like.numbers().unwrap();
        assert_eq!(Like::from_numbers(&numbers), Some(like));
        assert_eq!(Like::from_numbers(&[]), None);
        assert_eq!(Like::from_numbers(&[99, 3]), None);
        let bytes = Like::of(&Tensor::zeros([2, 3], (Kind::Uint8, Device::Cpu)));
        assert!(bytes.numbers().is_err());
    }
}

//! Visual attribute vectors (Larsen et al.): the mean code of images with an attribute minus that of
//! images without it, added to and taken from the codes of held-out images, and how well a straight
//! line reads the attribute from codes.

use std::cell::RefCell;
use std::rc::Rc;

use deepsim_data::{Attributes, Dataset};
use deepsim_experiment::Clip;
use deepsim_experiment::evaluate::decode;
use deepsim_experiment::measure::batches;
use deepsim_nets::metrics::{Probe, ProbeCodes};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::{EvalError, Result};
use crate::measure::photos::{LeftOut, encoded, from_data, picked, some, within};
use crate::run::catalog;
use crate::run::loaded::Loaded;
use crate::show::format::{number, table};

/// Images of either kind that an attribute needs among those of the training: a mean of fewer is an image.
pub const FEW: usize = 5;

/// What is said of one attribute in the codes of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Numbers {
    /// Run directory.
    pub run: String,
    /// The attribute.
    pub attribute: String,
    /// Training images with it.
    pub with: usize,
    /// Training images without it.
    pub without: usize,
    /// Length of the vector, relative to the root mean squared distance of the training images' codes from
    /// their mean.
    pub length: f64,
    /// Held-out images of which the attribute is known.
    pub held_out: usize,
    /// Share of those whose attribute a linear probe reads from their codes, percent; none where nothing is
    /// held out.
    pub probe: Option<f64>,
    /// The same for guessing what is commoner among training images, percent.
    pub guess: Option<f64>,
    /// Of held-out images without the attribute: share in whose reconstruction, encoded again, the probe finds it,
    /// percent.
    pub found_before: Option<f64>,
    /// The same when the vector was added.
    pub found_added: Option<f64>,
    /// Of held-out images with the attribute: share in whose reconstruction the probe misses it, percent.
    pub missed_before: Option<f64>,
    /// The same when the vector was taken away.
    pub missed_removed: Option<f64>,
}

/// One attribute in the codes of one run.
#[derive(Debug)]
pub struct Found {
    /// The numbers.
    pub numbers: Numbers,
    /// Held-out images without the attribute: they, their reconstructions, and with the vector added; Caffe
    /// units.
    pub added: Option<[Tensor; 3]>,
    /// Held-out images with it: they, their reconstructions, and with the vector taken away.
    pub removed: Option<[Tensor; 3]>,
}

/// Codes of images of a dataset and what is known of them.
struct Side {
    data: Dataset,
    chosen: Vec<usize>,
    codes: Tensor,
}

/// Attributes of a run whose encoder learned.
pub struct Asker<'a> {
    run: &'a Loaded,
    train: Side,
    test: Side,
    /// Training codes of the attribute that was asked for last, and which: attributes that all images have labels for
    /// share them.
    last: RefCell<Option<(Vec<usize>, Rc<ProbeCodes>)>>,
}

impl<'a> Asker<'a> {
    /// Encodes images with any known attribute, at most `images` of the training and as many held-out ones.
    ///
    /// # Errors
    /// A run without codes; unreadable or changed images; images without any attribute.
    pub fn new(run: &'a Loaded, labels: &Attributes, images: usize) -> Result<Asker<'a>> {
        if run.perception.learned().is_none() {
            return Err(EvalError::NoCodes {
                run: run.path.clone(),
            });
        }
        let augment = run.experiment.augment();
        let side = |data: Dataset, left_out: LeftOut| -> Result<Side> {
            let known: Vec<usize> = (0..data.len())
                .filter(|&i| {
                    let name = data.name(i);
                    labels.names().iter().any(|a| labels.get(name, a).is_some())
                })
                .collect();
            let known = some(&known, images);
            let (chosen, codes) =
                encoded(&data, &known, &augment, left_out, run.device, |_, x| {
                    Ok(run.perception.encode(x)?)
                })?;
            Ok(Side {
                data,
                chosen,
                codes,
            })
        };
        let _guard = tch::no_grad_guard();
        let train = side(run.train_data()?, LeftOut::of(&run.experiment))?;
        let test = side(run.test_data()?, LeftOut::none())?;
        if train.chosen.is_empty() {
            return Err(EvalError::NoLabels {
                data: train.data.describe(),
                example: train.data.name(0).to_owned(),
            });
        }
        Ok(Asker {
            run,
            train,
            test,
            last: RefCell::new(None),
        })
    }

    /// What probes on some of the training codes share.
    fn probe_codes(&self, rows: &[usize], codes: &Tensor) -> Result<Rc<ProbeCodes>> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, made)) if known == rows => Ok(Rc::clone(made)),
            _ => {
                let made = Rc::new(ProbeCodes::new(codes)?);
                *last = Some((rows.to_vec(), Rc::clone(&made)));
                Ok(made)
            }
        }
    }

    /// The vector of an attribute, `strength` times, added to and taken from at most `show` held-out images of
    /// either kind for the sheet, and from all of them for the numbers.
    ///
    /// # Errors
    /// Fewer than [`FEW`] training images of either kind.
    pub fn ask(
        &self,
        labels: &Attributes,
        attribute: &str,
        strength: f64,
        show: usize,
    ) -> Result<Found> {
        let _guard = tch::no_grad_guard();
        let (rows, classes) = known(&self.train, labels, attribute);
        let with = classes.iter().filter(|c| **c == 1).count();
        let without = classes.len() - with;
        if with < FEW || without < FEW {
            return Err(EvalError::OneClass {
                attribute: attribute.to_owned(),
                with,
                without,
                needed: FEW,
            });
        }
        let codes = picked(&self.train.codes, &rows)?;
        let of = |class: i64| -> Result<Tensor> {
            let rows: Vec<usize> = (0..classes.len())
                .filter(|&i| classes[i] == class)
                .collect();
            Ok(picked(&codes, &rows)?.f_mean_dim(0i64, true, Kind::Float)?)
        };
        let vector = of(1)?.f_sub(&of(0)?)?;
        let squares = |x: &Tensor| -> Result<f64> {
            Ok(x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?)
        };
        let apart = codes.f_sub(&codes.f_mean_dim(0i64, true, Kind::Float)?)?;
        let spread = squares(&apart)? / classes.len() as f64;
        let length = squares(&vector)?.sqrt();
        let (held, wanted) = known(&self.test, labels, attribute);
        let mut numbers = Numbers {
            run: self.run.path.display().to_string(),
            attribute: attribute.to_owned(),
            with,
            without,
            length: length / spread.sqrt().max(f64::MIN_POSITIVE),
            held_out: wanted.len(),
            ..Numbers::default()
        };
        let (mut added, mut removed) = (None, None);
        if !wanted.is_empty() {
            let others = picked(&self.test.codes, &held)?;
            let shared = self.probe_codes(&rows, &codes)?;
            let probe = shared.fit(&classes)?;
            let said = probe.read(&others)?;
            let right = said.iter().zip(&wanted).filter(|(a, b)| a == b).count();
            numbers.probe = percent(right, wanted.len());
            let commoner = i64::from(with > without);
            let guessed = wanted.iter().filter(|c| **c == commoner).count();
            numbers.guess = percent(guessed, wanted.len());
            let step = vector.f_mul_scalar(strength)?;
            for (class, step) in [(0, step.shallow_clone()), (1, step.f_neg()?)] {
                let rows: Vec<usize> = held
                    .iter()
                    .zip(&wanted)
                    .filter(|(_, c)| **c == class)
                    .map(|(r, _)| *r)
                    .collect();
                if rows.is_empty() {
                    continue;
                }
                let few = deepsim_data::spread(show.max(1), rows.len());
                let indices: Vec<usize> = few.iter().map(|&i| self.test.chosen[rows[i]]).collect();
                let augment = self.run.experiment.augment();
                let photos = from_data(&self.test.data, &indices, &augment, self.run.device)?;
                let (before, turned_before) = self.decoded((&rows, class), None, &few, &probe)?;
                let (after, turned_after) =
                    self.decoded((&rows, class), Some(&step), &few, &probe)?;
                let shares = (turned_before, turned_after);
                let sheet = Some([photos, before, after]);
                if class == 0 {
                    (numbers.found_before, numbers.found_added) = shares;
                    added = sheet;
                } else {
                    (numbers.missed_before, numbers.missed_removed) = shares;
                    removed = sheet;
                }
            }
        }
        Ok(Found {
            numbers,
            added,
            removed,
        })
    }

    /// Images decoded from held-out codes of one class, with a step added to each: those at the places `few`, and in
    /// which share of all of them, encoded again, the probe reads another class, percent.
    fn decoded(
        &self,
        (rows, class): (&[usize], i64),
        step: Option<&Tensor>,
        few: &[usize],
        probe: &Probe<'_>,
    ) -> Result<(Tensor, Option<f64>)> {
        let (mut kept, mut other) = (Vec::new(), 0);
        for batch in batches(rows.len()) {
            let mut codes = picked(&self.test.codes, &rows[batch.clone()])?;
            if let Some(step) = step {
                codes = codes.f_add(step)?;
            }
            let made = decode(&self.run.generator, &codes, Clip::Displayable)?;
            let said = probe.read(&self.run.perception.encode(&made)?)?;
            other += said.iter().filter(|c| **c != class).count();
            kept.push(picked(&made, &within(&batch, few))?);
        }
        Ok((Tensor::f_cat(&kept, 0)?, percent(other, rows.len())))
    }
}

fn percent(part: usize, of: usize) -> Option<f64> {
    Some(100.0 * part as f64 / of as f64)
}

/// Rows of a side's codes of which the attribute is known, and whether they have it.
fn known(side: &Side, labels: &Attributes, attribute: &str) -> (Vec<usize>, Vec<i64>) {
    side.chosen
        .iter()
        .enumerate()
        .filter_map(|(row, &i)| {
            let has = labels.get(side.data.name(i), attribute)?;
            Some((row, i64::from(has)))
        })
        .unzip()
}

/// Numbers of several runs and attributes as a table.
pub fn text(rows: &[Numbers]) -> String {
    let change = |a: Option<f64>, b: Option<f64>| format!("{} → {}", number(a, 0), number(b, 0));
    let table = table(
        rows,
        &[
            ("run", &|r| catalog::name(&r.run)),
            ("attribute", &|r| r.attribute.clone()),
            ("with/out", &|r| format!("{}/{}", r.with, r.without)),
            ("length", &|r| format!("{:.2}", r.length)),
            ("held out", &|r| r.held_out.to_string()),
            ("probe %", &|r| number(r.probe, 0)),
            ("guess %", &|r| number(r.guess, 0)),
            ("added %", &|r| change(r.found_before, r.found_added)),
            ("removed %", &|r| change(r.missed_before, r.missed_removed)),
        ],
    );
    format!(
        "{table}probe: held-out images whose attribute a straight line reads from their codes (guess: by saying \
         the commoner one).\nadded: images without the attribute in whose reconstruction the probe finds it, \
         before → with the vector added;\nremoved: images with it in whose reconstruction the probe misses \
         it, before → with the vector taken away.\n"
    )
}

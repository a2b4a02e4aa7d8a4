//! Two sets of images compared by the numbers that others report: image by image, and as distributions.
//!
//! Images pass batch by batch; a mean needs no more than a sum, and the Fréchet distance no more than moments. The
//! features of all images are kept for KID and for precision and recall alone. Several processes share the batches; the
//! numbers of each batch are added up in the batches' order, so that they are those of one process bit for bit.

mod brain;
mod images;
mod pairwise;
mod protocol;
mod spaces;

use deepsim_data::terminal::one_line;
use deepsim_experiment::Processes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use images::{Compared, Group, Reconstructions, Sets, Side};
pub use pairwise::{Metric, metrics, of_brain_decoding};
pub use protocol::{Protocol, Value, Weights};
pub use spaces::{Asked, Length, Purpose, Resize, Space, check};

use crate::error::Result;
use crate::show::format::table;
use spaces::Gathered;

/// Batches between two exchanges of several processes: what is in memory does not grow with the images.
const ROUND: usize = 16;

/// What is said of two sets. In JSON an object with each value under its key, and `protocol` with how each was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Pairs, or images of A where nothing is paired.
    pub n: usize,
    /// Both sides; A is the reference.
    pub sides: [Side; 2],
    /// The numbers.
    pub values: Vec<Value>,
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("n", &self.n)?;
        for value in &self.values {
            map.serialize_entry(value.key, &value.value)?;
        }
        map.serialize_entry("protocol", &Protocols(self))?;
        map.end()
    }
}

/// How the numbers were measured, by their keys.
struct Protocols<'a>(&'a Measured);

impl Serialize for Protocols<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let Measured { sides, values, .. } = self.0;
        let mut map = to.serialize_map(None)?;
        for (name, side) in ["a", "b"].iter().zip(sides) {
            map.serialize_entry(name, side)?;
        }
        for value in values {
            map.serialize_entry(value.key, &value.protocol)?;
        }
        map.end()
    }
}

/// A number as a line of CSV.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The key in JSON.
    pub metric: String,
    /// The number.
    pub value: Option<f64>,
    /// Pairs, or images of A.
    pub n: usize,
    /// How it was measured.
    pub protocol: String,
}

impl Measured {
    /// A row for each number.
    pub fn rows(&self) -> Vec<Row> {
        let row = |value: &Value| Row {
            metric: value.key.to_owned(),
            value: value.value,
            n: self.n,
            protocol: value.protocol.text(),
        };
        self.values.iter().map(row).collect()
    }

    /// What people should know of the numbers, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let remark = |value: &Value| {
            let remark = value.protocol.remark.as_ref()?;
            Some(format!("{}: {remark}", value.label))
        };
        self.values.iter().filter_map(remark).collect()
    }

    /// For people.
    pub fn text(&self) -> String {
        let number = |v: &Value| {
            v.value
                .map_or("-".to_owned(), |value| format!("{value:.4}"))
        };
        let mut out = String::new();
        for (name, side) in ["A", "B"].iter().zip(&self.sides) {
            let digest = side.digest.as_deref().map_or_else(String::new, |digest| {
                format!(", digest {}", digest.chars().take(16).collect::<String>())
            });
            out.push_str(&format!(
                "{name}: {} ({} images {}{digest})\n",
                one_line(&side.images),
                side.n,
                side.read
            ));
        }
        let columns = table(
            &self.values,
            &[
                ("metric", &|v: &Value| v.label.to_owned()),
                ("value", &number),
            ],
        );
        out.push_str(&format!("\n{columns}\n"));
        for value in &self.values {
            let text = value.protocol.text();
            out.push_str(&format!("{}: {}\n", value.label, one_line(&text)));
        }
        out
    }
}

/// Sum of a metric's numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    n: usize,
    sum: f64,
}

/// Measures images. Processes that do not lead get no distances of distributions. `progress` is told of batches.
///
/// # Errors
/// Unreadable images, pairs of different sizes, what the networks refuse; those of another process.
pub fn compute(
    processes: &Processes,
    compared: &dyn Compared,
    metrics: &[Metric],
    spaces: &[Space],
    seed: u64,
    mut progress: impl FnMut(u64),
) -> Result<Measured> {
    let mut sums = vec![Sum::default(); metrics.len()];
    let mut gathered: Vec<Gathered> = spaces.iter().map(|_| Gathered::default()).collect();
    let total = compared.batches();
    for from in (0..total).step_by(ROUND) {
        let count = ROUND.min(total - from);
        let own = (0..count).filter(|batch| processes.is_own(*batch));
        let own = own
            .map(|batch| {
                let found = numbers(compared, from + batch, metrics, spaces);
                found.map(|numbers| (batch, numbers))
            })
            .collect::<Result<Vec<_>>>();
        for of_batch in processes.gathered(own, count)? {
            let mut lists = Lists(&of_batch);
            for sum in &mut sums {
                for value in lists.next_list() {
                    sum.n += 1;
                    sum.sum += value;
                }
            }
            while !lists.0.is_empty() {
                for (space, gathered) in spaces.iter().zip(&mut gathered) {
                    for side in [0, 1] {
                        let list = lists.next_list();
                        if processes.leads() {
                            space.add(gathered, side, list)?;
                        }
                    }
                }
            }
        }
        progress(count as u64);
    }
    let sides = compared.sides();
    let mut values: Vec<Value> = metrics
        .iter()
        .zip(&sums)
        .map(|(metric, sum)| mean(metric, *sum, compared.is_paired()))
        .collect();
    if processes.leads() {
        for (space, gathered) in spaces.iter().zip(&gathered) {
            values.extend(space.values(gathered, seed)?);
        }
    }
    Ok(Measured {
        n: sides[0].n,
        sides,
        values,
    })
}

/// What there is to say of a batch: for each metric its numbers; then for each group of images, each space and each side
/// the features. Of each list its length stands first.
fn numbers(
    compared: &dyn Compared,
    batch: usize,
    metrics: &[Metric],
    spaces: &[Space],
) -> Result<Vec<f64>> {
    let groups = compared.read(batch)?;
    let mut numbers = Vec::new();
    let mut push = |list: &[f64]| {
        numbers.push(list.len() as f64);
        numbers.extend_from_slice(list);
    };
    for metric in metrics {
        let mut all = Vec::new();
        for group in &groups {
            if let [Some(a), Some(b)] = &group.sides {
                all.extend(metric.numbers(a, b)?.unwrap_or_default());
            }
        }
        push(&all);
    }
    if !spaces.is_empty() {
        for group in &groups {
            for space in spaces {
                for side in &group.sides {
                    match side {
                        Some(images) => push(&space.numbers(images)?),
                        None => push(&[]),
                    }
                }
            }
        }
    }
    Ok(numbers)
}

/// Lists of numbers behind each other, each behind its length.
struct Lists<'a>(&'a [f64]);

impl<'a> Lists<'a> {
    /// The next one; empty at the end.
    fn next_list(&mut self) -> &'a [f64] {
        let Some((&length, rest)) = self.0.split_first() else {
            return &[];
        };
        let (list, rest) = rest.split_at(rest.len().min(length as usize));
        self.0 = rest;
        list
    }
}

fn mean(metric: &Metric, sum: Sum, paired: bool) -> Value {
    let mut protocol = metric.protocol.clone();
    let mean = sum.sum / sum.n as f64;
    let value = (sum.n > 0 && mean.is_finite()).then_some(mean);
    if value.is_none() && protocol.reason.is_none() {
        protocol.reason = Some(if paired {
            metric.reason(mean)
        } else {
            "the images are not paired".to_owned()
        });
    }
    Value {
        key: metric.key,
        label: metric.label,
        value,
        protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// Pairs of grey images: `made` is one grey level brighter in each of its batches.
    struct Grey {
        side: i64,
        equal: bool,
    }

    impl Compared for Grey {
        fn sides(&self) -> [Side; 2] {
            let side = || Side {
                n: 40,
                ..Side::default()
            };
            [side(), side()]
        }

        fn is_paired(&self) -> bool {
            true
        }

        fn batches(&self) -> usize {
            20
        }

        fn read(&self, batch: usize) -> Result<Vec<Group>> {
            let grey = |by: f64| {
                let level = 100.0 + by + batch as f64;
                let shape = [2, 3, self.side, self.side];
                Some(Tensor::full(shape, level, (Kind::Float, Device::Cpu)))
            };
            let by = if self.equal { 0.0 } else { 1.0 };
            Ok(vec![Group {
                sides: [grey(0.0), grey(by)],
            }])
        }
    }

    fn measured(side: i64, equal: bool) -> serde_json::Value {
        let folder = tempfile::tempdir().unwrap();
        let metrics = metrics(folder.path(), Device::Cpu).unwrap();
        let asked = Asked {
            fid: true,
            ..Asked::default()
        };
        let space = Space::inception(asked, folder.path(), Device::Cpu).unwrap();
        let spaces: Vec<Space> = space.into_iter().collect();
        let mut batches = 0;
        let compared = Grey { side, equal };
        let alone = Processes::alone();
        let found = compute(&alone, &compared, &metrics, &spaces, 0, |n| batches += n).unwrap();
        assert_eq!(batches, 20);
        assert!(found.text().contains("PSNR"));
        assert_eq!(found.rows().len(), 7);
        serde_json::to_value(found).unwrap()
    }

    #[test]
    fn means_are_over_all_pairs_and_what_is_missing_has_a_reason() {
        let found = measured(16, false);
        assert_eq!(found["n"], 40);
        let psnr = found["psnr"].as_f64().unwrap();
        assert!(
            (psnr - 10.0 * 255f64.powi(2).log10()).abs() < 1e-9,
            "{psnr}"
        );
        assert!(found["ssim"].as_f64().unwrap() > 0.99);
        let reason = |key: &str| {
            found["protocol"][key]["reason"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        for (key, words) in [
            ("ms_ssim", "more than 160 pixels"),
            ("lpips_alex", "setup --only judges"),
            ("lpips_vgg16", "vgg16-lpips.safetensors"),
            ("dists", "setup --only judges"),
            ("fid", "pt_inception-2015-12-05-6726825d.pth"),
        ] {
            assert!(found[key].is_null(), "{key}");
            assert!(reason(key).contains(words), "{key}: {}", reason(key));
        }
        assert!(found["protocol"]["psnr"].get("reason").is_none());
        let found = measured(8, true);
        assert!(found["psnr"].is_null() && found["ssim"].is_null());
        let why = found["protocol"]["psnr"]["reason"].as_str().unwrap();
        assert!(why.contains("infinite"), "{why}");
    }

    #[test]
    fn lists_are_read_as_they_are_written() {
        let mut lists = Lists(&[2.0, 7.0, 8.0, 0.0, 1.0, 9.0]);
        assert_eq!(lists.next_list(), [7.0, 8.0]);
        assert!(lists.next_list().is_empty());
        assert_eq!(lists.next_list(), [9.0]);
        assert!(lists.0.is_empty() && lists.next_list().is_empty());
    }
}

//! The rounds of one work.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::agree::{Claim, agree};
use super::preparation::Bench;
use super::tuning::Tuning;
use super::work::{Contender, Work, contenders};
use super::worker::{Farewell, Ready, Unit, Worker};
use crate::numbers::{Summary, summary};
use deepsim_terminal::tell;
use deepsim_tools::failure::refuse;
use deepsim_tools::machine;

/// What was measured of one contender.
#[derive(Debug)]
pub struct Column {
    /// Who.
    pub contender: Contender,
    /// Its first line.
    pub ready: Ready,
    /// Its timed units.
    pub units: Vec<Unit>,
    /// Its last line.
    pub farewell: Farewell,
}

impl Column {
    /// Median and spread of its times.
    pub fn summary(&self) -> Option<Summary> {
        let times: Vec<f64> = self.units.iter().map(|unit| unit.seconds).collect();
        summary(&times)
    }
}

/// What was measured of one work.
#[derive(Debug)]
pub struct Measured {
    /// Which.
    pub work: Work,
    /// Each contender that takes part.
    pub columns: Vec<Column>,
}

impl Measured {
    /// A contender's column, if it takes part.
    pub fn column(&self, contender: Contender) -> Option<&Column> {
        self.columns.iter().find(|c| c.contender == contender)
    }

    /// How the tuned PyTorch was set, where that was looked for.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.column(Contender::Tuned)?.ready.tuning.as_ref()
    }

    /// A contender's median time, seconds.
    pub fn median(&self, contender: Contender) -> Option<f64> {
        Some(self.column(contender)?.summary()?.median)
    }

    /// How many times as long as ours a contender takes.
    pub fn ratio(&self, contender: Contender) -> Option<f64> {
        Some(self.median(contender)? / self.median(Contender::Ours)?)
    }
}

/// The largest rate of matrix products in this run, GFLOP/s, by arithmetic.
#[derive(Debug, Default)]
pub struct Peak {
    rates: Vec<(String, f64)>,
}

impl Peak {
    /// The peak of an arithmetic, if it was measured.
    pub fn of(&self, precision: &str) -> Option<f64> {
        let found = self.rates.iter().find(|(name, _)| name == precision)?;
        Some(found.1)
    }

    /// Takes a rate that was measured, if it is the largest.
    pub fn add(&mut self, precision: &str, rate: f64) {
        match self.rates.iter_mut().find(|(name, _)| name == precision) {
            Some((_, best)) => *best = best.max(rate),
            None => self.rates.push((precision.to_owned(), rate)),
        }
    }
}

/// Starts the work's contenders one after the other, lets them prove that they do the same, and
/// times them in turn.
///
/// # Errors
/// Too little memory, a worker that fails, contenders that disagree.
pub fn run(bench: &Bench, work: Work, rounds: u32, peak: &mut Peak) -> Result<Measured> {
    let name = work.name();
    require_memory(bench, work)?;
    bench.inputs(work)?;
    let tuning = bench.tuning(work)?;
    let mut started = Vec::new();
    for contender in contenders() {
        let Some(command) = bench.command(work, contender, tuning.as_ref()) else {
            continue;
        };
        tell(format_args!("{name}: loading {}", contender.name()));
        let what = format!("{} of {name}", contender.name());
        let (worker, mut ready) = match Worker::start(&what, command) {
            // It needs compilers, which a machine may lack.
            Err(error) if contender == Contender::Compiled => {
                tell(format_args!("{name}: without {what}: {error:#}"));
                continue;
            }
            started => started?,
        };
        if contender == Contender::Tuned {
            ready.tuning = tuning.clone();
        }
        started.push((contender, worker, ready, Vec::new()));
    }
    let claims: Vec<_> = started
        .iter()
        .map(|(contender, _, ready, _)| Claim {
            who: contender.name(),
            ours: matches!(contender, Contender::Ours | Contender::Uncaptured),
            precision: ready.precision.as_deref().unwrap_or("fp32"),
            on_gpu: bench.on_gpu(),
            checks: &ready.checks,
        })
        .collect();
    agree(name, &claims)?;
    let mut gemm = if work.trains() {
        Some(gemm(bench, &started)?)
    } else {
        None
    };

    for round in 0..rounds {
        if let Some((precision, worker, amount)) = &mut gemm {
            peak.add(precision, *amount / worker.go()?.seconds);
        }
        for (contender, worker, ready, units) in rotated(&mut started, round) {
            let unit = worker.go()?;
            tell(progress(name, round + 1, rounds, *contender, ready, unit));
            units.push(unit);
        }
    }
    let mut columns = Vec::new();
    for (contender, worker, ready, units) in started {
        if contender == Contender::Ours && work.trains() {
            tell(format_args!("{name}: phases of ours"));
        }
        columns.push(Column {
            contender,
            ready,
            units,
            farewell: worker.stop()?,
        });
    }
    if let Some((_, worker, _)) = gemm {
        worker.stop()?;
    }
    Ok(Measured { work, columns })
}

type Started = (Contender, Worker, Ready, Vec<Unit>);

/// Everyone, beginning with another one in each round.
fn rotated<T>(all: &mut [T], round: u32) -> impl Iterator<Item = &mut T> {
    let first = round as usize % all.len().max(1);
    let (head, tail) = all.split_at_mut(first);
    tail.iter_mut().chain(head)
}

/// A worker that multiplies matrices in the arithmetic that ours computes in.
fn gemm(bench: &Bench, started: &[Started]) -> Result<(String, Worker, f64)> {
    let ours = started.iter().find(|(c, ..)| *c == Contender::Ours);
    let precision = ours.and_then(|(_, _, ready, _)| ready.precision.clone());
    let precision = precision.unwrap_or_else(|| "fp32".to_owned());
    let (worker, ready) = Worker::start("the matrix products", bench.gemm(&precision))?;
    let amount = ready.amount.context("the matrix products tell no amount")?;
    Ok((precision, worker, amount))
}

fn require_memory(bench: &Bench, work: Work) -> Result<()> {
    let workers = contenders()
        .filter(|&contender| bench.takes_part(work, contender))
        .count() as u64;
    let needed = work.megabytes() * workers;
    match machine::available_mib() {
        Some(free) if free < needed => Err(refuse(format!(
            "{} keeps {workers} programs loaded, which takes up to {needed} MiB of memory; {free} MiB \
             are free. Choose smaller works: --only fc6_b16,conv5_b16,sample",
            work.name()
        ))),
        _ => Ok(()),
    }
}

fn progress(
    work: &str,
    round: u32,
    rounds: u32,
    contender: Contender,
    ready: &Ready,
    unit: Unit,
) -> String {
    let mut line = format!(
        "round {round}/{rounds} {work} {} {:.3} s",
        contender.name(),
        unit.seconds
    );
    if let (Contender::Tuned, Some(precision)) = (contender, &ready.precision) {
        let _ = write!(line, " ({precision})");
    }
    if let Some(others) = unit.others.filter(|&others| others > NOISE) {
        let _ = write!(
            line,
            "  [other programs took {:.0} % of the processors]",
            100.0 * others
        );
    }
    line
}

/// What other programs may take without being mentioned.
pub const NOISE: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_contender() {
        let mut all = [1, 2, 3];
        let mut order = |round| rotated(&mut all, round).map(|x| *x).collect::<Vec<_>>();
        assert_eq!(order(0), [1, 2, 3]);
        assert_eq!(order(1), [2, 3, 1]);
        assert_eq!(order(5), [3, 1, 2]);
        assert_eq!(rotated(&mut [0u8; 0], 4).count(), 0);
    }

    #[test]
    fn the_peak_is_the_best_rate_of_its_arithmetic() {
        let mut peak = Peak::default();
        peak.add("fp32", 300.0);
        peak.add("fp32", 340.0);
        peak.add("fp32", 100.0);
        assert_eq!((peak.of("fp32"), peak.of("bf16")), (Some(340.0), None));
    }
}

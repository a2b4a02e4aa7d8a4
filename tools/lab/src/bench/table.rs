//! The tables that people read, 80 columns at most.

use std::fmt::Write as _;

use super::measure::{Measured, NOISE, Peak};
use super::record;
use super::work::{COLUMNS, Contender, ON_GPUS, Unit};
use super::wrap::wrapped;
use crate::numbers::significant;

/// Everything: the contenders' times, then where the time of our iterations goes.
pub fn render(all: &[Measured], peak: &Peak) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 5]| {
        let [work, what, ours, tuned, naive] = cells;
        let row = format!("{work:<11} {what:<13} {ours:>17} {tuned:>17} {naive:>17}");
        let _ = writeln!(text, "{}", row.trim_end());
    };
    line(["work", "", "ours", "torch tuned", "torch naive"]);
    for measured in all {
        let cells = |get: &dyn Fn(Contender) -> Option<String>| {
            COLUMNS.map(|c| get(c).unwrap_or_else(|| "-".to_owned()))
        };
        let unit = match measured.work.unit() {
            Unit::Seconds => "s, median",
            Unit::ImagesPerSecond => "images/s",
        };
        let (name, rest) = split(measured.work.name());
        let [a, b, c] = cells(&|c| median(measured, c));
        line([name, unit, &a, &b, &c]);
        let [a, b, c] = cells(&|c| spread(measured, c));
        line([rest, "min-max", &a, &b, &c]);
        let [_, b, c] = cells(&|c| measured.ratio(c).map(|r| format!("{r:.2} x")));
        line(["", "time to ours", "", &b, &c]);
        let peak = |c| Some(format!("{:.0}", measured.column(c)?.farewell.peak_mib));
        let [a, b, c] = cells(&peak);
        line(["", "peak MiB", &a, &b, &c]);
        for (threads, rate, gain) in record::scaling(measured) {
            line(["", &threads, &format!("{rate:.0} ({gain:.2} x)"), "", ""]);
        }
    }
    for (measured, contender) in all.iter().flat_map(|m| ON_GPUS.map(|c| (m, c))) {
        if let (Some(median), Some(spread), Some(ratio)) = (
            median(measured, contender),
            spread(measured, contender),
            measured.ratio(contender),
        ) {
            text.push_str(&wrapped(&format!(
                "{}, {}: {median} s ({spread}), {ratio:.2} x ours",
                measured.work.name(),
                contender.name()
            )));
        }
    }
    let mut notes: Vec<&str> = Vec::new();
    for note in all.iter().filter_map(|m| m.work.footnote()) {
        if !notes.contains(&note) {
            notes.push(note);
            text.push_str(&wrapped(note));
        }
    }
    for (measured, tuning) in all.iter().filter_map(|m| Some((m, m.tuning()?))) {
        let name = measured.work.name();
        text.push_str(&wrapped(&format!(
            "{name}, torch tuned: {}",
            tuning.words()
        )));
    }
    text.push_str(&warning(all));
    for measured in all.iter().filter(|m| m.work.trains()) {
        text.push('\n');
        text.push_str(&phases(measured, peak));
    }
    text
}

/// A name that is too long for its column goes on in the next row.
fn split(name: &str) -> (&str, &str) {
    match name.find("_one_pass") {
        Some(at) => name.split_at(at),
        None => (name, ""),
    }
}

fn rate(measured: &Measured, contender: Contender, seconds: f64) -> Option<String> {
    Some(match measured.work.unit() {
        Unit::Seconds => significant(seconds, 3),
        Unit::ImagesPerSecond => {
            let amount = measured.column(contender)?.ready.amount?;
            format!("{:.0}", amount / seconds)
        }
    })
}

fn median(measured: &Measured, contender: Contender) -> Option<String> {
    let value = rate(measured, contender, measured.median(contender)?)?;
    let precision = &measured.column(contender)?.ready.precision;
    Some(match precision.as_deref() {
        Some(reduced @ ("bf16" | "tf32")) => format!("{reduced} {value}"),
        _ => value,
    })
}

fn spread(measured: &Measured, contender: Contender) -> Option<String> {
    let s = measured.column(contender)?.summary()?;
    let (a, b) = (
        rate(measured, contender, s.min)?,
        rate(measured, contender, s.max)?,
    );
    // The shortest time is the highest rate.
    Some(match measured.work.unit() {
        Unit::Seconds => format!("{a}-{b}"),
        Unit::ImagesPerSecond => format!("{b}-{a}"),
    })
}

fn phases(measured: &Measured, peak: &Peak) -> String {
    let mut text = String::new();
    let Some(ours) = measured.column(Contender::Ours) else {
        return text;
    };
    let _ = writeln!(
        text,
        "{}: where the time of ours goes",
        measured.work.name()
    );
    let all = &ours.farewell.components;
    let sum: f64 = all.iter().map(|(_, seconds)| seconds).sum();
    for (name, seconds) in all {
        let _ = writeln!(
            text,
            "  {name:<38} {:>8} s {:>5.1} %",
            significant(*seconds, 3),
            100.0 * seconds / sum.max(1e-9)
        );
    }
    let _ = writeln!(
        text,
        "  {:<38} {:>8} s",
        "sum (each phase at its fastest)",
        significant(sum, 3)
    );
    if let (Some(gflop), Some(median)) = (ours.ready.gflop, measured.median(Contender::Ours)) {
        let _ = write!(
            text,
            "  {gflop:.0} GFLOP by direct sums: {:.0} GFLOP/s",
            gflop / median
        );
        if let Some((gemm, share)) = record::gemm(measured, peak).zip(record::share(measured, peak))
        {
            let _ = write!(
                text,
                ", {:.0} % of a large matrix product's {gemm:.0}",
                100.0 * share
            );
        }
        text.push('\n');
    }
    text
}

/// A word on noise, where other programs ran.
fn warning(all: &[Measured]) -> String {
    let units = all.iter().flat_map(|m| &m.columns).flat_map(|c| &c.units);
    let others: Vec<f64> = units.filter_map(|unit| unit.others).collect();
    let noisy = others.iter().filter(|&&share| share > NOISE).count();
    if noisy == 0 {
        return String::new();
    }
    wrapped(&format!(
        "NOISY: in {noisy} of {} timed units other programs took more than {:.0} % of the processors; \
         run it again on an idle machine before you trust a ratio",
        others.len(),
        100.0 * NOISE
    ))
}

#[cfg(test)]
pub mod tests {
    use super::super::measure::Column;
    use super::super::work::Work;
    use super::super::worker::{Farewell, Ready, Unit as Timed};
    use super::*;

    fn column(contender: Contender, ready: &str, times: &[f64]) -> Column {
        let unit = |&seconds: &f64| Timed {
            seconds,
            others: Some(0.4),
        };
        Column {
            contender,
            ready: serde_json::from_str::<Ready>(ready).unwrap(),
            units: times.iter().map(unit).collect(),
            farewell: Farewell {
                peak_mib: 1234.5,
                components: vec![
                    ("G forward".to_owned(), 0.25),
                    ("the rest".to_owned(), 0.75),
                ],
            },
        }
    }

    /// A run of two works.
    pub fn example() -> (Vec<Measured>, Peak) {
        let fp32 = r#"{"ready":true,"precision":"fp32","gflop":300.0}"#;
        let bf16 = r#"{"ready":true,"precision":"bf16"}"#;
        let amount = r#"{"ready":true,"amount":300.0}"#;
        let fc6 = Measured {
            work: Work::Fc6B16,
            columns: vec![
                column(Contender::Ours, fp32, &[1.0, 2.0]),
                column(Contender::Tuned, bf16, &[3.0]),
                column(Contender::Naive, fp32, &[12.345, 6.0, 700.0]),
            ],
        };
        let mut ours = column(Contender::Ours, amount, &[0.1]);
        ours.farewell.components =
            vec![("1 thread".to_owned(), 0.1), ("2 threads".to_owned(), 0.05)];
        let shards = Measured {
            work: Work::Shards,
            columns: vec![ours],
        };
        (vec![fc6, shards], Peak::default())
    }

    #[test]
    fn the_table_fits_80_columns_and_says_what_was_measured() {
        let (all, peak) = example();
        let text = render(&all, &peak);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        for part in [
            "bf16 3.00",
            "1.00-2.00",
            "2.00 x",
            "6.00-700",
            "images/s",
            "3000",
            "25.0 %",
            "200 GFLOP/s",
            "NOISY",
            "2 threads",
            "6000 (2.00 x)",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn what_was_tried_of_pytorch_is_said() {
        let (mut all, peak) = example();
        assert!(!render(&all, &peak).contains("torch tuned:"));
        all[0].columns[1].ready.tuning = Some(super::super::tuning::tests::example());
        let text = render(&all, &peak);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        for words in ["fc6_b16, torch tuned: chosen bf16 on 2 threads", "failed:"] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
    }

    #[test]
    fn long_names_go_on_in_the_next_row_and_a_note_is_said_once() {
        let ready = r#"{"ready":true,"precision":"fp32"}"#;
        let all = [Work::Fc6B64OnePass, Work::Conv5B64OnePass].map(|work| Measured {
            work,
            columns: vec![
                column(Contender::Ours, ready, &[1.0, 2.0]),
                column(Contender::Tuned, ready, &[3.0]),
            ],
        });
        let text = render(&all, &Peak::default());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1].starts_with("fc6_b64 ") && rows[2].starts_with("_one_pass "),
            "{text}"
        );
        assert_eq!(text.matches("one_pass: D passes").count(), 1, "{text}");
    }
}

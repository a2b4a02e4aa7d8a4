//! What `--json` writes, and the record of a kind of processor: the same.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::head::Head;
use super::measure::{Column, Measured, Peak};
use super::work::{COLUMNS, Contender, ON_GPUS, Unit, Work, contenders};
use super::worker::{Farewell, Ready, Unit as Timed};

/// The whole file: a list with one entry for each work. Times are seconds of one unit of work;
/// a contender that has no part is null.
///
/// # Errors
/// None that is known of.
pub fn json(all: &[Measured], peak: &Peak, head: &Head) -> Result<String> {
    let entries: Vec<Value> = all
        .iter()
        .map(|measured| entry(measured, peak, head))
        .collect();
    let mut text = serde_json::to_string_pretty(&entries).context("writing the measurements")?;
    text.push('\n');
    Ok(text)
}

fn entry(measured: &Measured, peak: &Peak, head: &Head) -> Value {
    // Those of GPUs are there where they have a part.
    let part = |contender: &Contender| {
        COLUMNS.contains(contender) || measured.column(*contender).is_some()
    };
    let each = |get: &dyn Fn(&Column) -> Value| -> Value {
        let all = contenders().filter(part).map(|contender| {
            let value = measured.column(contender).map_or(Value::Null, get);
            (contender.key().to_owned(), value)
        });
        Value::Object(all.collect())
    };
    let units = |get: fn(&Timed) -> Value| each(&|c| c.units.iter().map(get).collect());
    let mut entry = json!({
        "work": measured.work.name(),
        "processor": head.processor,
        "kind": head.kind,
        "commit": head.commit,
        "paths": head.paths,
        "tuned_to_ours": measured.ratio(Contender::Tuned),
        "naive_to_ours": measured.ratio(Contender::Naive),
        "spread": each(&|c| c.summary().map_or(Value::Null, |s| json!([s.min, s.max]))),
        "times_s": units(|unit: &Timed| json!(unit.seconds)),
        "others_cpu": units(|unit: &Timed| json!(unit.others)),
        "peak_mib": each(&|c| json!(c.farewell.peak_mib)),
        "precision": each(&|c| json!(c.ready.precision)),
        "threads": each(&|c| json!(c.ready.threads)),
        "path": each(&|c| json!(c.ready.path)),
        "compiled": each(&|c| json!(c.ready.compiled)),
        "tuning": measured.tuning(),
        "checks": each(&|c| json!(c.ready.checks)),
    });
    for contender in contenders().filter(part) {
        entry[format!("{}_s", contender.key())] = json!(measured.median(contender));
    }
    for contender in ON_GPUS.into_iter().filter(part) {
        entry[format!("{}_to_ours", contender.key())] = json!(measured.ratio(contender));
    }
    let gpu = measured.columns.iter().find_map(|c| c.ready.device.clone());
    if let Some(gpu) = gpu {
        entry["device"] = json!(gpu);
    }
    if let Some(ours) = measured.column(Contender::Ours) {
        if measured.work.unit() == Unit::ImagesPerSecond {
            entry["images_per_unit"] = json!(ours.ready.amount);
            let rows = scaling(measured).into_iter();
            entry["scaling"] = rows
                .map(|(threads, rate, _)| json!({ "on": threads, "images_per_s": rate }))
                .collect();
        }
        if measured.work.trains() {
            entry["gflop"] = json!(ours.ready.gflop);
            entry["gemm_gflops"] = json!(gemm(measured, peak));
            entry["share_of_gemm_peak"] = json!(share(measured, peak));
            let components = ours.farewell.components.iter();
            entry["components"] = components
                .map(|(name, seconds)| json!({ "phase": name, "s": seconds }))
                .collect();
        }
    }
    entry
}

/// How a work that is told in images per second scales with threads: what ours says of each number
/// of them, with its rate and how many times the first one's that is.
pub fn scaling(measured: &Measured) -> Vec<(String, f64, f64)> {
    let ours = measured.column(Contender::Ours);
    let images = ours.and_then(|ours| Some((ours, ours.ready.amount?)));
    let Some((ours, amount)) = images.filter(|_| measured.work.unit() == Unit::ImagesPerSecond)
    else {
        return Vec::new();
    };
    let all = &ours.farewell.components;
    let first = all.first().map_or(1.0, |(_, seconds)| *seconds);
    all.iter()
        .map(|(threads, seconds)| (threads.clone(), amount / seconds, first / seconds))
        .collect()
}

/// Rate of the largest matrix product in ours' arithmetic, GFLOP/s.
pub fn gemm(measured: &Measured, peak: &Peak) -> Option<f64> {
    let ours = measured.column(Contender::Ours)?;
    peak.of(ours.ready.precision.as_deref()?)
}

/// Share of that rate which ours reaches over the whole iteration.
pub fn share(measured: &Measured, peak: &Peak) -> Option<f64> {
    let gflop = measured.column(Contender::Ours)?.ready.gflop?;
    Some(gflop / measured.median(Contender::Ours)? / gemm(measured, peak)?)
}

/// What was measured, out of a file of [`json()`].
///
/// # Errors
/// No list of works that are known.
pub fn parse(file: &Value) -> Result<(Vec<Measured>, Peak)> {
    let mut peak = Peak::default();
    let mut all = Vec::new();
    for entry in file.as_array().context("no list of works")? {
        let name = entry["work"].as_str().unwrap_or_default();
        let mut works = Work::value_variants().iter().copied();
        let work = works
            .find(|work| work.name() == name)
            .with_context(|| format!("there is no work `{name}`"))?;
        let columns: Vec<Column> = contenders()
            .filter_map(|contender| column(entry, work, contender))
            .collect();
        let ours = columns
            .first()
            .and_then(|ours| ours.ready.precision.as_deref());
        if let Some((precision, rate)) = ours.zip(entry["gemm_gflops"].as_f64()) {
            peak.add(precision, rate);
        }
        all.push(Measured { work, columns });
    }
    Ok((all, peak))
}

/// A contender's part of an entry; none where it had none.
fn column(entry: &Value, work: Work, contender: Contender) -> Option<Column> {
    let of = |key: &str| &entry[key][contender.key()];
    let times = of("times_s").as_array()?;
    let others = |at: usize| of("others_cpu")[at].as_f64();
    let units = times.iter().enumerate().filter_map(|(at, seconds)| {
        Some(Timed {
            seconds: seconds.as_f64()?,
            others: others(at),
        })
    });
    let ours = contender == Contender::Ours;
    let amount = match work.unit() {
        Unit::ImagesPerSecond => entry["images_per_unit"].as_f64(),
        Unit::Seconds => None,
    };
    let list = |key: &str| entry[key].as_array().map_or(&[][..], Vec::as_slice);
    let phases = list("components")
        .iter()
        .filter_map(|phase| Some((phase["phase"].as_str()?.to_owned(), phase["s"].as_f64()?)));
    let scaling = list("scaling").iter().filter_map(|line| {
        let seconds = amount? / line["images_per_s"].as_f64()?;
        Some((line["on"].as_str()?.to_owned(), seconds))
    });
    let mut ready = Ready::recorded(
        of("precision").as_str().map(str::to_owned),
        amount,
        entry["gflop"].as_f64().filter(|_| ours),
    );
    if contender == Contender::Tuned {
        // Older records have none.
        ready.tuning = serde_json::from_value(entry["tuning"].clone()).ok();
    }
    Some(Column {
        contender,
        ready,
        units: units.collect(),
        farewell: Farewell {
            peak_mib: of("peak_mib").as_f64().unwrap_or(f64::NAN),
            components: if ours {
                phases.chain(scaling).collect()
            } else {
                Vec::new()
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::example as head;
    use super::super::table::tests::example;
    use super::super::tuning::tests::example as tuning;
    use super::*;

    #[test]
    fn a_table_out_of_a_record_is_the_table_of_the_measurement() {
        let (mut all, mut peak) = example();
        all[0].columns[1].ready.tuning = Some(tuning());
        peak.add("fp32", 250.0);
        let file = serde_json::from_str(&json(&all, &peak, &head()).unwrap()).unwrap();
        let (again, known) = parse(&file).unwrap();
        let render = super::super::table::render;
        assert_eq!(render(&again, &known), render(&all, &peak));
        assert!(parse(&json!([{ "work": "unknown" }])).is_err());
    }

    #[test]
    fn contenders_of_gpus_are_in_an_entry_where_they_have_a_part() {
        let (mut all, peak) = example();
        let of = |all: &[Measured]| -> Value {
            serde_json::from_str(&json(all, &peak, &head()).unwrap()).unwrap()
        };
        assert!(of(&all)[0].get("torch_compiled_s").is_none());
        assert!(of(&all)[0]["times_s"].get("torch_compiled").is_none());
        let seconds = |seconds| Timed {
            seconds,
            others: None,
        };
        all[0].columns.push(Column {
            contender: Contender::Compiled,
            ready: Ready::recorded(Some("bf16".to_owned()), None, None),
            units: vec![seconds(4.5)],
            farewell: Farewell::default(),
        });
        let file = of(&all);
        assert_eq!(file[0]["torch_compiled_s"], 4.5);
        assert_eq!(file[0]["torch_compiled_to_ours"], 3.0);
        assert!(file[0].get("ours_uncaptured_s").is_none());
        let (again, _) = parse(&file).unwrap();
        assert_eq!(again[0].ratio(Contender::Compiled), Some(3.0));
        let table = super::super::table::render(&again, &peak);
        assert!(table.contains("torch compiled: bf16 4.50 s"), "{table}");
    }

    #[test]
    fn an_entry_has_what_was_measured_and_null_for_who_had_no_part() {
        let (all, peak) = example();
        let text = json(&all, &peak, &head()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let fc6 = &value[0];
        assert_eq!(fc6["kind"], "amd-avx512-bf16");
        assert_eq!(fc6["commit"], "abc");
        assert_eq!(fc6["paths"]["torch"]["aten"], "AVX512");
        assert_eq!(fc6["tuning"], Value::Null);
        assert_eq!(fc6["work"], "fc6_b16");
        assert_eq!(fc6["ours_s"], 1.5);
        assert_eq!(fc6["torch_tuned_s"], 3.0);
        assert_eq!(fc6["tuned_to_ours"], 2.0);
        assert_eq!(fc6["spread"]["ours"], json!([1.0, 2.0]));
        assert_eq!(fc6["precision"]["torch_naive"], "fp32");
        assert_eq!(fc6["components"][0]["phase"], "G forward");
        assert!(fc6["share_of_gemm_peak"].is_null());
        let shards = &value[1];
        assert_eq!(shards["torch_tuned_s"], Value::Null);
        assert_eq!(shards["images_per_unit"], 300.0);
        assert_eq!(shards["scaling"][1]["on"], "2 threads");
        assert_eq!(shards["scaling"][1]["images_per_s"], 6000.0);
        assert!(shards.get("gflop").is_none());
    }
}

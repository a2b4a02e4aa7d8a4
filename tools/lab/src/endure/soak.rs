//! A long training whose memory, file handles, threads and speed are written down.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::figure;
use super::look::Look;
use super::small::{arguments, clear, newest, ready, writer};
use crate::samples;
use deepsim_tools::failure::ChildFailed;
use deepsim_tools::landing;
use deepsim_tools::machine::processor_seconds;
use deepsim_tools::programs::Programs;
use deepsim_tools::stages::note;
use deepsim_tools::workspace::Workspace;

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask soak
      66 minutes: docs/results/soak.json and docs/pictures/soak.png
  cargo xtask soak --minutes 5
      a trial, printed only";

/// Names record and run.
const NAME: &str = "soak";
const FIGURE: &str = "docs/pictures/soak.png";
/// A trial that is shorter leaves no record.
const WHOLE: f64 = 60.0;
/// What counts as a long run.
const STEPS: f64 = 20_000.0;
/// Looks at the process, over all of the time.
const LOOKS: u32 = 720;
/// Looks are no closer: a step is heard of about once a second.
const CLOSEST: Duration = Duration::from_secs(5);
/// Minutes that a step's time is averaged over. Steps are heard of twenty at a time: within one look of five
/// seconds a step of 46 ms would be one of 42 or one of 50.
const WINDOW: f64 = 1.0;
/// Share of the looks that is warming up: caches fill, the heap finds its size.
const WARMING: f64 = 0.1;
/// Length of each control: of the whole, and minutes at least.
const CONTROL: f64 = 0.05;
const SHORTEST_CONTROL: f64 = 1.0;

/// How long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Minutes of training; two controls of a twentieth of it, a minute at least, come after
    #[arg(long, value_name = "N", default_value_t = WHOLE, value_parser = deepsim_tools::args::minutes)]
    minutes: f64,
}

/// How a quantity changed from the first quarter after warming up to the last quarter.
#[derive(Debug, Clone, Serialize)]
struct Change {
    quantity: &'static str,
    first: f64,
    last: f64,
    percent: f64,
}

/// A training of a few minutes, after the long one and on the same machine: it tells slowness that comes with
/// age from slowness of the machine.
#[derive(Debug, Serialize)]
struct Control {
    name: &'static str,
    minutes: f64,
    /// After warming up.
    step_ms: f64,
    step_cpu_ms: f64,
}

impl Control {
    fn of(name: &'static str, minutes: f64, looks: &[Look]) -> Self {
        let warm = warm(looks);
        Self {
            name,
            minutes,
            step_ms: over(warm, step_ms),
            step_cpu_ms: over(warm, step_cpu_ms),
        }
    }
}

#[derive(Debug, Serialize)]
struct Evidence<'a> {
    name: &'static str,
    command: &'static str,
    commit: Option<String>,
    minutes: f64,
    steps: f64,
    changes: &'a [Change],
    controls: &'a [Control],
    looks: &'a [Look],
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let (programs, mut stages) = ready(ws)?;
    let commit = samples::commit(ws);
    let run = Path::new("runs").join(NAME);
    let young = Path::new("runs").join(format!("{NAME}-young"));
    for run in [&run, &young] {
        clear(&ws.path(run))?;
    }
    stages.next(&format!("training for {} minutes", args.minutes));
    let looks = train(ws, &programs, &run, &[], args.minutes)?;
    let changes = changes(&looks);
    let steps = newest(&ws.path(&run), "step").unwrap_or(0.0);
    let minutes = (CONTROL * args.minutes).max(SHORTEST_CONTROL);
    stages.next(&format!("controls, {minutes} minutes each"));
    let same = train(ws, &programs, &run, &["--resume"], minutes)?;
    let new = train(ws, &programs, &young, &[], minutes)?;
    let at_first = looks.partition_point(|look| look.minutes <= minutes);
    let controls = [
        Control::of("begun anew", minutes, &new),
        Control::of("as it began, for comparison", minutes, &looks[..at_first]),
        Control::of("gone on in a new process", minutes, &same),
    ];
    print!("{}", table(&changes, &controls, args.minutes, steps));
    if args.minutes < WHOLE || steps < STEPS {
        note(format_args!(
            "no record: it takes {WHOLE} minutes and {STEPS} steps"
        ));
        return Ok(());
    }
    let numbers = changes.iter().flat_map(|c| [c.first, c.last]);
    if !numbers
        .chain(controls.iter().map(|c| c.step_ms))
        .all(f64::is_finite)
    {
        bail!("no record: something was not measured; see the table above");
    }
    let evidence = Evidence {
        name: NAME,
        command: "cargo xtask soak",
        commit,
        minutes: args.minutes,
        steps,
        changes: &changes,
        controls: &controls,
        looks: &looks,
    };
    samples::write(ws, NAME, &evidence)?;
    landing::write(&ws.path(FIGURE), &figure::draw(&looks)?)?;
    note(format_args!("written: {FIGURE}"));
    Ok(())
}

/// Trains in `run` until the time is up, and what was seen of the process meanwhile.
fn train(
    ws: &Workspace,
    programs: &Programs,
    run: &Path,
    more: &[&str],
    minutes: f64,
) -> Result<Vec<Look>> {
    let begun = Instant::now();
    let whole = Duration::from_secs_f64(60.0 * minutes);
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (run, over) = (ws.path(run), Arc::clone(&over));
        thread::spawn(move || watch(&run, begun, whole, &over))
    };
    // Everything that a long run does, often: checkpoints, sheets, evaluations.
    let often = [
        "steps=1000000000",
        "log_every=20",
        "checkpoint_every=500",
        "sample_every=500",
        "eval_every=500",
    ];
    let often: Vec<String> = often.iter().map(|set| format!("train.{set}")).collect();
    let trained = programs
        .get(ws, "the training", "deepsim-train")?
        .args(arguments(run, &often))
        .args(more)
        .until(Some(begun + whole))
        .run();
    over.store(true, Ordering::Relaxed);
    let looks = watcher.join().unwrap_or_default();
    ended_in_time(trained, begun.elapsed(), whole).map(|()| looks)
}

/// SIGTERM is how a soak ends, but only one that has lasted: any other is somebody's wish to stop it.
fn ended_in_time(trained: Result<()>, after: Duration, whole: Duration) -> Result<()> {
    match trained {
        Err(error) => match error.downcast_ref::<ChildFailed>() {
            Some(failed) if failed.ending.code() == 143 && after >= whole => Ok(()),
            _ => Err(error),
        },
        Ok(()) => bail!("the training ended by itself"),
    }
}

/// Looks until it is over or `whole` has passed: a process that is ending is no part of it.
fn watch(run: &Path, begun: Instant, whole: Duration, over: &AtomicBool) -> Vec<Look> {
    let every = (whole / LOOKS).max(CLOSEST);
    let mut looks: Vec<Look> = Vec::new();
    let mut next = begun;
    while !over.load(Ordering::Relaxed) && begun.elapsed() + every / 2 < whole {
        if Instant::now() < next {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        next += every;
        let Some(mut look) =
            writer(run).and_then(|pid| look(&PathBuf::from(format!("/proc/{pid}"))))
        else {
            continue;
        };
        look.minutes = begun.elapsed().as_secs_f64() / 60.0;
        look.step = newest(run, "step").unwrap_or(0.0);
        look.step_ms = looks
            .iter()
            .rfind(|past| look.minutes - past.minutes >= WINDOW)
            .and_then(|past| step_ms(past, &look));
        looks.push(look);
    }
    looks
}

fn look(process: &Path) -> Option<Look> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let number = |key: &str| -> Option<f64> {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Look {
        minutes: 0.0,
        step: 0.0,
        resident_mib: number("VmRSS:")? / 1024.0,
        handles: fs::read_dir(process.join("fd")).ok()?.count() as f64,
        threads: number("Threads:")?,
        cpu_s: processor_seconds(&fs::read_to_string(process.join("stat")).ok()?)?,
        step_ms: None,
    })
}

/// Milliseconds a step between two looks.
fn step_ms(from: &Look, to: &Look) -> Option<f64> {
    (to.step > from.step).then(|| (to.minutes - from.minutes) * 60e3 / (to.step - from.step))
}

/// The same in processor time.
fn step_cpu_ms(from: &Look, to: &Look) -> Option<f64> {
    (to.step > from.step).then(|| (to.cpu_s - from.cpu_s) * 1e3 / (to.step - from.step))
}

/// Over all of these looks.
fn over(looks: &[Look], of: fn(&Look, &Look) -> Option<f64>) -> f64 {
    let ends = looks.first().zip(looks.last());
    ends.and_then(|(from, to)| of(from, to)).unwrap_or(f64::NAN)
}

/// A name, and its value of some looks.
type Quantity = (&'static str, fn(&[Look]) -> f64);

fn warm(looks: &[Look]) -> &[Look] {
    let from = (looks.len() as f64 * WARMING) as usize;
    looks.get(from..).unwrap_or_default()
}

fn changes(looks: &[Look]) -> Vec<Change> {
    let warm = warm(looks);
    let quarter = warm.len() / 4;
    if quarter == 0 {
        return Vec::new();
    }
    let (first, last) = (&warm[..quarter], &warm[warm.len() - quarter..]);
    let quantities: [Quantity; 5] = [
        ("resident memory, MiB", |l| median(l, |l| l.resident_mib)),
        ("file handles", |l| median(l, |l| l.handles)),
        ("threads", |l| median(l, |l| l.threads)),
        ("milliseconds a step", |l| over(l, step_ms)),
        ("of processor time", |l| over(l, step_cpu_ms)),
    ];
    quantities
        .into_iter()
        .map(|(quantity, of)| {
            let (first, last) = (of(first), of(last));
            Change {
                quantity,
                first,
                last,
                percent: 100.0 * (last / first - 1.0),
            }
        })
        .collect()
}

fn median(looks: &[Look], of: fn(&Look) -> f64) -> f64 {
    let mut values: Vec<f64> = looks.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(changes: &[Change], controls: &[Control], minutes: f64, steps: f64) -> String {
    let mut out = format!(
        "{minutes:.0} minutes, {steps:.0} steps; the first quarter (after a tenth for warming up) and the last\n"
    );
    for c in changes {
        out.push_str(&format!(
            "{:<22} {:>9.2} {:>9.2} {:>+7.2} %\n",
            c.quantity, c.first, c.last, c.percent
        ));
    }
    out.push_str("controls, right after: milliseconds a step, and of processor time\n");
    for c in controls {
        out.push_str(&format!(
            "{:<32} {:>9.2} {:>9.2}\n",
            c.name, c.step_ms, c.step_cpu_ms
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(n: u32, by: f64) -> Vec<Look> {
        (0..n)
            .map(|i| Look {
                minutes: f64::from(i),
                step: f64::from(i) * 10.0,
                resident_mib: 100.0 + by * f64::from(i),
                handles: 20.0,
                threads: 4.0,
                cpu_s: 0.1 * f64::from(i),
                step_ms: None,
            })
            .collect()
    }

    #[test]
    fn a_leak_shows_and_its_absence_too() {
        let flat = changes(&growing(100, 0.0));
        assert!(flat.iter().all(|c| c.percent.abs() < 1e-9), "{flat:?}");
        let leak = changes(&growing(100, 1.0));
        // Medians at 10+11 and 78+11 of a hundred looks.
        assert_eq!((leak[0].first, leak[0].last), (121.0, 189.0));
        assert_eq!(leak[1].percent, 0.0);
        // Ten steps a minute, a tenth of a second of processor time for all of them.
        assert_eq!(leak[3].first, 6_000.0);
        assert!((leak[4].last - 10.0).abs() < 1e-9, "{leak:?}");
        assert!(changes(&growing(3, 0.0)).is_empty());
    }

    #[test]
    fn steps_that_slow_down_show() {
        let mut slower = growing(100, 0.0);
        for look in &mut slower {
            look.minutes *= 1.0 + look.minutes / 100.0;
        }
        let change = &changes(&slower)[3];
        assert!(change.percent > 50.0, "{change:?}");
    }

    #[test]
    fn a_soak_that_was_stopped_is_none() {
        use deepsim_tools::failure::Ending;
        let ended = |code| -> Result<()> {
            Err(ChildFailed {
                what: "the training".into(),
                ending: Ending::Code(code),
                hint: String::new(),
            }
            .into())
        };
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert!(ended_in_time(ended(143), minutes(60), minutes(60)).is_ok());
        assert!(ended_in_time(ended(143), minutes(20), minutes(60)).is_err());
        assert!(ended_in_time(ended(130), minutes(60), minutes(60)).is_err());
        assert!(ended_in_time(Ok(()), minutes(60), minutes(60)).is_err());
    }

    #[test]
    fn a_process_can_be_looked_at() {
        let own = look(Path::new("/proc/self")).unwrap();
        assert!(own.resident_mib > 1.0 && own.threads >= 1.0 && own.handles >= 3.0);
        assert!(look(Path::new("/proc/none")).is_none());
    }
}

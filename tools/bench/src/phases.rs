//! Where the time of an iteration goes: the spans of the trainer's own iteration, timed one by one.
//!
//! On a GPU each phase waits for the device. The iteration itself does not, so the sum of the phases is above its time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use tch::Device;
use tracing::Subscriber;
use tracing::span::Id;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::serve::wait;
use crate::state::Bench;

/// Iterations that are timed; each phase counts with its fastest.
const PASSES: usize = 2;

/// Begins the targets of the trainer's spans.
const TRAINER: &str = "deepsim_train";

/// The trainer's spans, and what the records call them.
const LABELS: [(&str, &str); 12] = [
    ("features", "features of the photographs"),
    ("generate", "G forward"),
    ("discriminator_forward", "D forward, twice"),
    ("discriminator_backward", "D backward"),
    (
        "discriminator_shared_backward",
        "D backward, to the generated",
    ),
    ("discriminator_update", "D's Adam"),
    ("adversarial_term", "D on the generated, forward"),
    ("feature_term", "comparator forward"),
    ("image_term", "image loss, forward"),
    ("generator_backward", "backward of all terms, to G"),
    ("generator_update", "G's Adam"),
    ("losses", "losses read and checked"),
];

/// Seconds of phases, in their order.
type Times = Vec<(&'static str, f64)>;

/// Does some iterations, and gives the seconds of each phase in the order of the iteration.
///
/// # Errors
/// What the iteration fails with.
pub fn measure(bench: &mut Bench) -> Result<Value> {
    let mut best = Times::new();
    for _ in 0..PASSES {
        let clock = Clock::new(bench.x.device());
        let times = clock.times.clone();
        let subscriber = tracing_subscriber::registry().with(clock);
        tracing::subscriber::with_default(subscriber, || bench.iterate())?;
        let pass = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
        keep_fastest(&mut best, pass);
    }
    Ok(json!(best))
}

/// Lowers the times of phases to those of another pass; phases that are new are added.
fn keep_fastest(best: &mut Times, pass: Times) {
    for (name, seconds) in pass {
        match best.iter_mut().find(|(known, _)| *known == name) {
            Some((_, least)) => *least = least.min(seconds),
            None => best.push((name, seconds)),
        }
    }
}

/// Whether a span is a phase of the trainer's iteration.
fn is_ours<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> bool {
    let span = context.metadata(id);
    span.is_some_and(|span| span.target().starts_with(TRAINER))
}

/// What the records call a span.
fn label(span: &'static str) -> &'static str {
    let known = LABELS.iter().find(|(name, _)| *name == span);
    known.map_or(span, |(_, label)| label)
}

/// Times the trainer's spans on one thread. They are not nested.
struct Clock {
    device: Device,
    begun: Mutex<Option<Instant>>,
    times: Arc<Mutex<Times>>,
}

impl Clock {
    fn new(device: Device) -> Clock {
        Clock {
            device,
            begun: Mutex::new(None),
            times: Arc::default(),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Clock {
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if !is_ours(id, &context) {
            return;
        }
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if !is_ours(id, &context) {
            return;
        }
        wait(self.device);
        let begun = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let span = context.metadata(id);
        if let (Some(begun), Some(span)) = (begun, span) {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push((label(span.name()), begun.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs;
    use crate::work::Training;

    /// Names of the phases of an iteration of a work, made small.
    fn names(work: &str) -> Vec<String> {
        let mut experiment = Training::find(work).unwrap().experiment("fp32").unwrap();
        experiment.config.train.batch_size = 2;
        let x = inputs::batch(&experiment).unwrap();
        let mut bench = Bench::new(experiment, &x).unwrap();
        let value = measure(&mut bench).unwrap();
        let rows = value.as_array().unwrap();
        assert!(rows.iter().all(|row| row[1].as_f64().unwrap() > 0.0));
        rows.iter()
            .map(|row| row[0].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn phases_of_the_sample_work_have_the_records_names_in_the_order_of_the_iteration() {
        let expected: Vec<&str> = LABELS
            .iter()
            .map(|(_, label)| *label)
            .filter(|label| *label != "D backward, to the generated")
            .collect();
        assert_eq!(names("sample"), expected);
    }

    #[test]
    fn keep_fastest_lowers_known_phases_and_adds_new_ones() {
        let mut best = vec![("a", 2.0), ("b", 1.0)];
        keep_fastest(&mut best, vec![("a", 1.5), ("b", 3.0), ("c", 4.0)]);
        assert_eq!(best, [("a", 1.5), ("b", 1.0), ("c", 4.0)]);
    }
}

//! The training loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use deepsim_data::terminal::tell;
use deepsim_data::{
    Augment, BatchSpec, DataError, Dataset, Flow, Loader, Overlap, Part, shared_images,
};
use deepsim_experiment::config::{RawNotFinite, Source};
use deepsim_experiment::evaluate::{decode, held_out, held_out_features, to_caffe};
use deepsim_experiment::recorded::SCALE_FILE;
use deepsim_experiment::{
    Checkpoint, Clip, Consent, Experiment, ExperimentError, Intent, Manifest, Perception, RunDir,
    Start, checkpoint, device, measure, sheet,
};
use deepsim_nets::init::derive_seed;
use deepsim_nets::{NetError, PixelDistance, structural};
use serde_json::Value;
use tch::Device;

use crate::arithmetic::{advice, set_products};
use crate::error::{Result, TrainError};
use crate::gate::Watch;
use crate::iteration::{Plan, iterate};
use crate::metrics_log::{Means, MetricsLog};
use crate::progress::Progress;
use crate::reporting::{
    dead_discriminator, eval_entries, eval_line, gate_name, log_entries, stuck_gate,
};
use crate::signals::Stop;
use crate::state::State;
use crate::tensorboard::EventWriter;

/// Photographs on a sample sheet.
const SHEET: usize = 8;
/// Held-out photographs that are decoded at once before a run begins.
const CHECKED_AT_ONCE: usize = 32;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Run directory.
    pub out: PathBuf,
    /// What to do with results that are there.
    pub intent: Intent,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Which TorchScript modules may be run.
    pub consent: Consent,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done(u64),
    /// A signal asked to stop; a checkpoint of this step was written. Exit code.
    Stopped(u64, u8),
}

/// Trains an experiment to its last step, or until a signal.
///
/// # Errors
/// Everything that is wrong with the experiment, its inputs or the run directory, before the
/// first step; unreadable photographs, losses that are not finite, and a full disk later. The
/// last checkpoint is never harmed.
pub fn train(experiment: &Experiment, request: &Request, stop: &Stop) -> Result<End> {
    let mut request = request.clone();
    let mut rates = Rates::AsTheyAre;
    loop {
        match attempt(experiment, &request, rates, stop) {
            Err(TrainError::NotFinite { step, term, value })
                if experiment.raw.train.not_finite == RawNotFinite::Halve =>
            {
                tell(format_args!(
                    "warning: step {step}: {term} is {value}: back to the last checkpoint, and on with \
                     half the learning rates"
                ));
                request.intent = Intent::Resume;
                rates = Rates::Halved;
            }
            other => return other,
        }
    }
}

/// Learning rates of an attempt, against those of the checkpoint that it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rates {
    AsTheyAre,
    Halved,
}

/// Halvings after which it is not the learning rate.
const HALVINGS: u64 = 8;

/// Trains until the end, a signal, or a number that is not finite.
fn attempt(experiment: &Experiment, request: &Request, rates: Rates, stop: &Stop) -> Result<End> {
    experiment.check_inputs()?;
    let device = device::choose(&request.device)?;
    set_threads(experiment.raw.train.threads, device);
    deepsim_nets::flush_denormals();

    let settings = &experiment.raw.train;
    let data = Arc::new(Dataset::open_and_tell(&experiment.raw.data.train)?);
    let test = Dataset::open_and_tell(&experiment.raw.data.test)?;
    let spec = BatchSpec {
        batch_size: settings.batch_size,
        augment: experiment.augment(),
        seed: settings.seed,
    };
    check_size(experiment, &data)?;
    check_size(experiment, &test)?;
    // Before the run directory is touched: --fresh deletes.
    spec.check(&data)?;
    check_held_out(experiment, &test)?;
    let shared = shared_with_training(&data, &test, stop)?;
    set_products(settings)?;
    let recorded = recorded(experiment, request)?;
    if let Some(run) = &recorded
        && (request.intent == Intent::Ask || run.manifest.step >= settings.steps)
        && let (_, Start::Finished(step)) =
            RunDir::open(&request.out, experiment, request.intent, 0)?
    {
        // Nothing is left to do, and nobody need allow anything for it.
        return Ok(End::Done(step));
    }
    let permit = match &recorded {
        Some(run) => request.consent.on_run(&request.out, &run.manifest),
        None => request.consent.at_first(&experiment.path),
    };
    let mut perception = Perception::open(experiment, permit, device)?;
    perception.try_batches(&batches(experiment, &test), crop(experiment), device)?;
    perception.prepare(&data, &test)?;
    let mut state = State::new(experiment, perception.learned(), device)?;
    let (run, start) = RunDir::open(
        &request.out,
        experiment,
        request.intent,
        state.checkpoint_bytes(),
    )?;
    let mut manifest = describe(experiment, &perception, &data, &test);
    manifest.held_out_overlap = shared.as_ref().map(Vec::len);
    let counters = match start {
        Start::Finished(step) => return Ok(End::Done(step)),
        Start::Zero => None,
        Start::From(checkpoint) => {
            same_inputs(run.path(), &manifest, &checkpoint.manifest)?;
            manifest.seconds = checkpoint.manifest.seconds;
            Some(state.restore(&checkpoint)?)
        }
    };
    let first = state.step;
    tell(format_args!(
        "{}: {} → {}, compared at {}; {} photographs, batch {}, {}",
        experiment.raw.name,
        experiment.encoder,
        pixels(experiment.raw.data.crop),
        experiment.comparator,
        data.len(),
        settings.batch_size,
        match first {
            0 => format!("steps 1 to {}", settings.steps),
            k => format!("resumed at step {k} of {}", settings.steps),
        }
    ));
    let remarks = [
        advice(settings.precision, device).map(str::to_owned),
        fewer_scales(experiment),
        not_held_out(shared.as_ref().map_or(0, Vec::len), test.len()),
    ];
    for remark in remarks.into_iter().flatten() {
        tell(remark);
    }

    // Of the images that evaluations look at.
    let evaluated_shared = shared.map(|shared| {
        let looked_at = measure::chosen(&test, settings.eval_images);
        let is_shared = |i: &&usize| shared.binary_search(i).is_ok();
        looked_at.iter().filter(is_shared).count()
    });
    let plan = Plan::of(experiment);
    let bad = experiment.bad_images();
    let mut loader = Loader::new(Arc::clone(&data), spec, first, bad, &state.quarantined)?;
    let mut log = MetricsLog::open(&run.path().join("metrics.jsonl"), first)?;
    let mut events = event_writer(run.path(), counters.as_ref().map(|_| first))?;
    let progress = Progress::new(first, settings.steps);
    let mut means = Means::default();
    let mut watch = Watch::new(state.adam_g.count(), state.adam_d.count());
    if let Some(counters) = &counters {
        means = Means::restore(counters);
        watch.restore(counters);
    }
    let (mut logged_at, mut logged_step) = (Instant::now(), first);
    let mut saved = first;
    let begun = Instant::now();
    let earlier = manifest.seconds;
    let mut save = |state: &State, means: &Means, watch: &Watch, saved: &mut u64| -> Result<()> {
        if !state.is_finite()? {
            return Err(TrainError::NotFinite {
                step: state.step,
                term: "a weight, or what Adam remembers of one,",
                value: f64::NAN,
            });
        }
        manifest.step = state.step;
        manifest.seconds = earlier + begun.elapsed().as_secs_f64();
        let mut snapshot = state.snapshot();
        snapshot.counters.extend(means.counters());
        snapshot.counters.extend(watch.counters());
        if let Some(scale) = perception.scale() {
            snapshot.files.insert(SCALE_FILE, scale.tensors());
        }
        checkpoint::write(&run.checkpoints(), manifest.clone(), &snapshot)?;
        run.retain(settings.keep_checkpoints, state.step)?;
        *saved = state.step;
        Ok(())
    };

    if rates == Rates::Halved {
        if state.halvings == HALVINGS {
            return Err(TrainError::Hopeless { halvings: HALVINGS });
        }
        state.halvings += 1;
        // At once: a process that is killed now must not begin with the old rates.
        save(&state, &means, &watch, &mut saved)?;
    }

    while state.step < settings.steps {
        let batch = loader.next_batch()?;
        let pictures = to_caffe(&batch.images, device)?;
        let recorded = perception.recorded(Part::Train, &data, &batch.indices)?;
        loader.recycle(batch);
        if loader.quarantined().len() > state.quarantined.len() {
            state.quarantined.extend(loader.quarantined().keys());
        }
        let seed = derive_seed(settings.seed, "dropout", state.step);
        let losses = iterate(
            &mut state,
            &perception,
            &pictures,
            recorded.as_ref(),
            &plan,
            seed,
        )?;
        let step = state.step;
        means.add(&losses);
        progress.tick();
        // The equilibrium of Larsen et al. is near what is death in the paper's game.
        if plan.loss.adv > 0.0 && plan.vaegan.is_none() {
            watch.vital.observe(losses.discriminator(), losses.adv);
            if watch.vital.should_tell() {
                progress.say(&dead_discriminator(step));
            }
        }

        if plan.loss.adv > 0.0 {
            watch
                .balance
                .observe(state.adam_g.count(), state.adam_d.count());
            if let Some(player) = watch.balance.should_tell() {
                progress.say(&stuck_gate(step, player, plan.vaegan.is_some()));
            }
        }

        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let last = step == settings.steps;
        if due(settings.log_every) || last {
            let l = means.take();
            let n = (step - logged_step) as f64 * settings.batch_size as f64;
            let images_per_s = n / logged_at.elapsed().as_secs_f64().max(1e-9);
            (logged_at, logged_step) = (Instant::now(), step);
            let entries = log_entries(
                &l,
                &state,
                &plan,
                experiment,
                images_per_s,
                &watch,
                state.quarantined.len(),
            );
            log.write(step, &entries)?;
            scalars(&mut events, step, &entries)?;
            progress.report(step, &l, images_per_s, gate_name(&state));
        }
        if due(settings.sample_every) || last {
            let png = sample(
                run.path(),
                step,
                &test,
                &experiment.augment(),
                &perception,
                &state,
                device,
            )?;
            events
                .image_png(
                    step,
                    now(),
                    "reconstructions",
                    png.width,
                    png.height,
                    &png.bytes,
                )
                .map_err(ExperimentError::io(run.path()))?;
        }
        if due(settings.eval_every) || last {
            match held_out(
                &test,
                &experiment.augment(),
                &perception,
                &state.generator,
                settings.eval_images,
                Clip::Displayable,
                device,
            ) {
                Ok(e) => {
                    let entries = eval_entries(&e, evaluated_shared);
                    log.write(step, &entries)?;
                    scalars(&mut events, step, &entries)?;
                    progress.say(&eval_line(step, &e));
                }
                // Nothing is wrong with the training.
                Err(ExperimentError::Net(error @ NetError::AllAlike)) => {
                    progress.say(&format!("step {step}: no held-out error: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if due(settings.checkpoint_every) || last {
            save(&state, &means, &watch, &mut saved)?;
        }
        if let Some(code) = stop.asked()
            && !last
        {
            if saved != step {
                save(&state, &means, &watch, &mut saved)?;
            }
            progress.finish();
            return Ok(End::Stopped(step, code));
        }
    }
    progress.finish();
    Ok(End::Done(state.step))
}

/// Held-out images that are training images, too; none where it cannot be told, or where a signal has asked to stop (which the
/// loop hears).
fn shared_with_training(data: &Dataset, test: &Dataset, stop: &Stop) -> Result<Option<Vec<usize>>> {
    let go_on = || match stop.asked() {
        Some(_) => Flow::Stop,
        None => Flow::Continue,
    };
    match shared_images(data, test, &go_on) {
        Ok(Overlap::Images(shared)) => Ok(Some(shared)),
        Ok(Overlap::NotComparable(_)) | Err(DataError::Interrupted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is to be said of held-out images that are training images.
fn not_held_out(shared: usize, of: usize) -> Option<String> {
    let which = match shared {
        0 => return None,
        all if all == of => format!("all {of} held-out images are"),
        some => format!("{some} of {of} held-out images are also"),
    };
    Some(format!(
        "warning: {which} training images: errors on them are not those of unseen images"
    ))
}

/// MS-SSIM on pictures too small for all of its scales is another measure than on large ones.
fn fewer_scales(experiment: &Experiment) -> Option<String> {
    let side = i64::from(experiment.raw.data.crop);
    let scales = structural::scales(side, side);
    let fewer = experiment.raw.pixels.distance == PixelDistance::MsSsim
        && scales < structural::scales(i64::MAX, i64::MAX);
    fewer.then(|| {
        format!(
            "note: MS-SSIM compares pictures of {side} pixels at {scales} scales instead of {}, with their \
             weights scaled to the same sum",
            structural::scales(i64::MAX, i64::MAX)
        )
    })
}

fn set_threads(threads: usize, device: Device) {
    if device.is_cuda() {
        // What libtorch has left to do on the CPU is small, and its threads spin while they wait for more:
        // they would take the processors from decoding, and from the thread that feeds the GPU.
        tch::set_num_threads(1);
    }
    if threads > 0 {
        if !device.is_cuda() {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        // Fails where a pool exists already (a second training in one process): the batches are
        // the same for any number of threads.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
    }
}

/// The checkpoint that a run goes on from, where it has recorded the hashes of TorchScript modules.
fn recorded(experiment: &Experiment, request: &Request) -> Result<Option<Checkpoint>> {
    let sources = [&experiment.encoder, &experiment.comparator];
    let modules = sources.iter().any(|s| matches!(s, Source::Script(_)));
    match modules && request.intent != Intent::Fresh {
        true => Ok(Checkpoint::newest(&request.out.join("checkpoints"))?),
        false => Ok(None),
    }
}

/// Sizes of all batches that will go through the networks: of training, of evaluations and of sample sheets.
fn batches(experiment: &Experiment, test: &Dataset) -> Vec<i64> {
    let train = &experiment.raw.train;
    let mut sizes = measure::batch_sizes(test.len().min(train.eval_images));
    sizes.extend([train.batch_size, test.len().min(SHEET)].map(|n| n as i64));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn crop(experiment: &Experiment) -> i64 {
    i64::from(experiment.raw.data.crop)
}

fn check_size(experiment: &Experiment, data: &Dataset) -> Result<()> {
    if experiment.raw.data.scale.is_none() && experiment.raw.data.crop > data.stored_size() {
        let reason = format!(
            "is {} but the photographs are stored at {} pixels ({}); prepare them larger or lower it",
            experiment.raw.data.crop,
            data.stored_size(),
            data.describe()
        );
        let path = experiment.path.clone();
        return Err(ExperimentError::Invalid {
            path,
            key: "data.crop".into(),
            reason,
        }
        .into());
    }
    Ok(())
}

/// Errors are relative to the distance between photographs, of which one alone has none; and all that will be looked at
/// must be readable.
fn check_held_out(experiment: &Experiment, test: &Dataset) -> Result<()> {
    if test.len() < 2 {
        let reason = format!("needs at least 2 photographs, has {}", test.describe());
        let path = experiment.path.clone();
        return Err(ExperimentError::Invalid {
            path,
            key: "data.test".into(),
            reason,
        }
        .into());
    }
    // A corrupt one would stop the run at its first evaluation, each time that it is resumed.
    let mut shown = measure::chosen(test, experiment.raw.train.eval_images);
    shown.extend(measure::chosen(test, SHEET));
    shown.sort_unstable();
    shown.dedup();
    for part in shown.chunks(CHECKED_AT_ONCE) {
        deepsim_data::eval_batch(test, part, &experiment.augment())?;
    }
    Ok(())
}

fn describe(
    experiment: &Experiment,
    perception: &Perception,
    data: &Dataset,
    test: &Dataset,
) -> Manifest {
    let version = |k: &str, v: String| (k.to_owned(), v);
    Manifest {
        format: checkpoint::FORMAT,
        step: 0,
        seconds: 0.0,
        generator: experiment.generator.clone(),
        discriminator: experiment.discriminator.clone(),
        encoder_weights: perception.encoder_hash.clone(),
        comparator_weights: perception.comparator_hash.clone(),
        train_data: data.digest(),
        test_data: test.digest(),
        versions: BTreeMap::from([
            version("deepsim", env!("CARGO_PKG_VERSION").to_owned()),
            version("libtorch", deepsim_nets::torch_version()),
        ]),
        files: BTreeMap::new(),
        digest: None,
        framing: Some(test.framing()),
        held_out_overlap: None,
    }
}

/// A resumed run must see the weights and photographs that it began with.
fn same_inputs(run: &Path, now: &Manifest, then: &Manifest) -> Result<()> {
    for (what, is, was) in [
        (
            "encoder.weights",
            &now.encoder_weights,
            &then.encoder_weights,
        ),
        (
            "comparator.weights",
            &now.comparator_weights,
            &then.comparator_weights,
        ),
        ("data.train", &now.train_data, &then.train_data),
        ("data.test", &now.test_data, &then.test_data),
    ] {
        if is != was {
            let cut = |s: &str| s.chars().take(16).collect();
            return Err(ExperimentError::InputChanged {
                path: run.to_owned(),
                what: what.to_owned(),
                was: cut(was),
                is: cut(is),
            }
            .into());
        }
    }
    Ok(())
}

fn pixels(crop: u32) -> String {
    format!("{crop}x{crop} px")
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |d| d.as_secs_f64())
}

fn event_writer(run: &Path, resumed_at: Option<u64>) -> Result<EventWriter> {
    let dir = run.join("tensorboard");
    let open = || -> std::io::Result<EventWriter> {
        std::fs::create_dir_all(&dir)?;
        match resumed_at {
            None => EventWriter::create(&dir),
            Some(step) => EventWriter::resume(&dir, step + 1, now()),
        }
    };
    Ok(open().map_err(ExperimentError::io(&dir))?)
}

fn scalars(events: &mut EventWriter, step: u64, entries: &[(&str, Value)]) -> Result<()> {
    let as_number = |v: &Value| v.as_f64().or_else(|| v.as_bool().map(f64::from));
    let numbers: Vec<(&str, f64)> = entries
        .iter()
        .filter_map(|(k, v)| Some((*k, as_number(v)?)))
        .collect();
    let written = events
        .scalars(step, now(), &numbers)
        .and_then(|()| events.flush());
    Ok(written.map_err(ExperimentError::io(Path::new("tensorboard")))?)
}

/// Writes `samples/step-….png`: held-out photographs above their reconstructions.
fn sample(
    run: &Path,
    step: u64,
    test: &Dataset,
    augment: &Augment,
    perception: &Perception,
    state: &State,
    device: Device,
) -> Result<sheet::Png> {
    let _guard = tch::no_grad_guard();
    let shown = measure::chosen(test, SHEET);
    let images = deepsim_data::eval_batch(test, &shown, augment)?;
    let x = to_caffe(&images, device)?;
    let features = held_out_features(perception, test, &shown, &x)?;
    let y = decode(&state.generator, &features, Clip::Displayable)?;
    let png = sheet::rows(&[&x, &y])?;
    let dir = run.join("samples");
    let path = dir.join(format!("{}.png", checkpoint::directory_name(step)));
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&path, &png.bytes))
        .map_err(ExperimentError::io(&path))?;
    Ok(png)
}

/// The newest checkpoint of a run, for callers that only read.
///
/// # Errors
/// No checkpoint, or none that verifies.
pub fn newest(run: &Path) -> Result<Checkpoint> {
    match Checkpoint::newest(&run.join("checkpoints"))? {
        Some(checkpoint) => Ok(checkpoint),
        None => Err(TrainError::from(ExperimentError::NoCheckpoint {
            path: run.to_owned(),
        })),
    }
}

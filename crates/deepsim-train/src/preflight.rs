//! Everything before the first step. What is wrong with the experiment, its inputs or the run directory is found here,
//! before anything is removed or rewritten.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use deepsim_data::terminal::path as shown;
use deepsim_data::{
    BadImages, Batch, BatchSpec, DataError, Dataset, Flow, Loader, Overlap, shared_images,
};
use deepsim_experiment::config;
use deepsim_experiment::{
    Checkpoint, Experiment, ExperimentError, Fixed, Intent, Manifest, Perception, RunDir, Start,
    measure,
};
use deepsim_nets::PixelDistance;
use deepsim_nets::loss::ssim as structural;
use tch::Device;

use crate::batches::{batches, trained_at_once};
use crate::error::Result;
use crate::method::Slice;
use crate::observe::metrics_log::{self, Means};
use crate::precision::{advice, is_open, set_products};
use crate::ranks::Ranks;
use crate::reports::{SHEET, is_evaluated};
use crate::request::Request;
use crate::signals::Stop;
use crate::state::State;

/// Held-out images that are decoded at once before a run begins.
const CHECKED_AT_ONCE: usize = 32;

/// A run that is ready for its next step.
pub(crate) struct Prepared {
    pub device: Device,
    pub data: Arc<Dataset>,
    pub test: Dataset,
    pub perception: Perception,
    pub state: State,
    pub run: RunDir,
    /// Describes the next checkpoint but for its step and time.
    pub manifest: Manifest,
    /// Of the checkpoint that it goes on from.
    pub counters: Option<BTreeMap<String, i64>>,
    pub loader: Loader,
    /// Of the next step: its images are readable.
    pub batch: Batch,
    /// The places in each batch of the loader's images.
    pub share: Slice,
    /// Of the images that evaluations look at: how many are training images, where it is known.
    pub overlap: Option<usize>,
}

/// What there is to do.
pub(crate) enum Ready {
    /// Nothing: the run has reached its last step.
    Finished(u64),
    /// To train.
    Begin(Box<Prepared>),
}

/// Opens everything that a training needs, and checks it.
///
/// # Errors
/// Everything that is wrong with the experiment, its inputs or the run directory.
pub(crate) fn prepare(
    experiment: &Experiment,
    request: &Request,
    stop: &Stop,
    ranks: &Ranks,
) -> Result<Ready> {
    let settings = &experiment.config.train;
    let Inputs {
        data,
        test,
        spec,
        share,
        device,
    } = Inputs::open(experiment, request, ranks)?;
    check_held_out(experiment, &test)?;

    let claim = || RunDir::claim(&request.out, experiment, request.intent);
    // A directory that is there may answer at once. One that is not is made when all else is well.
    let claimed = request.out.exists().then(claim).transpose()?;
    let claimed = match claimed {
        Some((run, Start::Finished(step))) => match unwritten(&run, step)? {
            Some(checkpoint) => Some((run, Start::From(checkpoint))),
            None => {
                if let Some(newest) = Checkpoint::newest(&run.checkpoints())? {
                    tell_other_data(&data, &test, &newest.manifest);
                }
                finished(run.path(), step, experiment);
                return Ok(Ready::Finished(step));
            }
        },
        claimed => claimed,
    };
    let shared = shared_with_training(&data, &test, stop)?;
    let recorded = recorded(experiment, request)?;
    let permit = request.permit(experiment, recorded.as_ref());
    let mut perception = Perception::open(experiment, &permit, device)?;
    let sizes = batches(experiment, &test, share);
    perception.try_batches(&sizes, crop(experiment), device)?;
    perception.prepare(&data, &test)?;
    let mut state = State::new(experiment, perception.take_learned(), device)?;
    let goes_on = matches!(claimed, Some((_, Start::From(_))));
    let begin = || state.begin_with_weights(experiment);
    let initial = (!goes_on).then(begin).transpose()?;
    let (run, start) = match claimed {
        Some(claimed) => claimed,
        None => claim()?,
    };
    run.check_space(experiment, state.checkpoint_bytes())?;
    let mut manifest = describe(experiment, &perception, &data, &test)?;
    manifest.held_out_overlap = shared.as_ref().map(Vec::len);
    manifest.initial = initial.unwrap_or_default();
    let counters = match start {
        Start::Finished(step) => return Ok(Ready::Finished(step)),
        Start::Zero => None,
        Start::From(checkpoint) => {
            same_inputs(run.path(), &manifest, &checkpoint.manifest)?;
            manifest.initial.clone_from(&checkpoint.manifest.initial);
            manifest.seconds = checkpoint.manifest.seconds;
            Some(state.restore(&checkpoint)?)
        }
    };
    let bad = experiment.config.data.bad_images();
    let places = places(share);
    let images = Arc::clone(&data);
    let left_out = &state.quarantined;
    let mut loader = Loader::of_share(images, spec, places, state.step, bad, left_out)?;
    let batch = loader.next_batch()?;
    // Nothing is removed or rewritten before all processes can begin.
    ranks.begin(&facts(experiment, &manifest))?;
    if request.intent == Intent::Fresh {
        stop.cleared();
    }
    run.begin(experiment, request.intent)?;

    tracing::info!(
        "{}: {} → {}{}; {} images, batch {}, {}",
        experiment.config.name,
        experiment.encoder,
        pixels(experiment.config.data.crop),
        compared_at(experiment),
        data.len(),
        settings.batch_size,
        match state.step {
            0 => format!("steps 1 to {}", settings.steps),
            k if k >= settings.steps => format!("step {k} is done, but for its line in the log"),
            k => format!("resumed at step {k} of {}", settings.steps),
        }
    );
    let warning = not_held_out(shared.as_ref().map_or(0, Vec::len), test.len());
    for remark in remarks(experiment, settings, device)
        .into_iter()
        .chain(warning)
    {
        tracing::info!("{remark}");
    }
    let overlap = shared.map(|shared| {
        let looked_at = measure::chosen(&test, settings.eval_images);
        let is_shared = |i: &&usize| shared.binary_search(i).is_ok();
        looked_at.iter().filter(is_shared).count()
    });
    Ok(Ready::Begin(Box::new(Prepared {
        device,
        data,
        test,
        perception,
        state,
        run,
        manifest,
        counters,
        loader,
        batch,
        share,
        overlap,
    })))
}

/// The images of a training and how it takes them, opened and checked.
struct Inputs {
    data: Arc<Dataset>,
    test: Dataset,
    spec: BatchSpec,
    share: Slice,
    device: Device,
}

impl Inputs {
    fn open(experiment: &Experiment, request: &Request, ranks: &Ranks) -> Result<Inputs> {
        experiment.check_inputs()?;
        let settings = &experiment.config.train;
        let data = Arc::new(Dataset::open_and_tell(&experiment.config.data.train)?);
        let test = Dataset::open_and_tell(&experiment.config.data.test)?;
        let spec = BatchSpec {
            batch_size: settings.batch_size,
            augment: experiment.augment(),
            seed: settings.seed,
        };
        check_size(experiment, &data)?;
        check_size(experiment, &test)?;
        spec.check(&data)?;
        let device = ranks.device(&request.device)?;
        ranks.check(device, experiment)?;
        ranks.exchange_in(settings.reduce);
        let share = ranks.share(settings.batch_size, settings.shards())?;
        set_threads(settings.threads, device);
        deepsim_nets::flush_denormals();
        set_products(settings)?;
        Ok(Inputs {
            data,
            test,
            spec,
            share,
            device,
        })
    }
}

/// The places in a batch that a share has.
fn places(share: Slice) -> Range<usize> {
    let place = |position: i64| usize::try_from(position).unwrap_or_default();
    place(share.from)..place(share.from + share.len)
}

/// What a process needs that trains along and writes nothing.
pub(crate) struct Following {
    pub device: Device,
    pub data: Arc<Dataset>,
    pub perception: Perception,
    /// Before the first step: rank 0 says where it stands.
    pub state: State,
    pub share: Slice,
    pub manifest: Manifest,
    spec: BatchSpec,
}

impl Following {
    /// Opens all that it needs, and checks it. `recorded` is what rank 0's run has.
    ///
    /// # Errors
    /// Everything that is wrong with the experiment and its inputs.
    pub(crate) fn prepare(
        experiment: &Experiment,
        request: &Request,
        recorded: Option<&Manifest>,
        ranks: &Ranks,
    ) -> Result<Following> {
        let inputs = Inputs::open(experiment, request, ranks)?;
        let permit = request.permit(experiment, recorded);
        let mut perception = Perception::open(experiment, &permit, inputs.device)?;
        let sizes = trained_at_once(experiment, inputs.share);
        perception.try_batches(&sizes, crop(experiment), inputs.device)?;
        perception.prepare(&inputs.data, &inputs.test)?;
        let state = State::new(experiment, perception.take_learned(), inputs.device)?;
        let manifest = describe(experiment, &perception, &inputs.data, &inputs.test)?;
        Ok(Following {
            device: inputs.device,
            data: inputs.data,
            perception,
            state,
            share: inputs.share,
            manifest,
            spec: inputs.spec,
        })
    }

    /// Its images of the batches from the state's step on.
    ///
    /// # Errors
    /// Those of [`Loader::of_share`].
    pub(crate) fn loader(&self) -> Result<Loader> {
        let data = Arc::clone(&self.data);
        let (share, step) = (places(self.share), self.state.step);
        let none = BTreeSet::new();
        Ok(Loader::of_share(
            data,
            self.spec.clone(),
            share,
            step,
            BadImages::Fail,
            &none,
        )?)
    }
}

/// What processes that train together must have in common, by name.
pub(crate) fn facts(experiment: &Experiment, manifest: &Manifest) -> BTreeMap<String, String> {
    // Where files lie may differ from host to host: digests tell whether they are the same, and what networks that train
    // begin with and stand on comes from rank 0.
    let is_place = |key: &str| {
        let names = ["name", "data.train", "data.test"];
        names.contains(&key) || key.ends_with(".weights") || key.ends_with(".network_weights")
    };
    let values = manifest.experiment.iter().flat_map(|fixed| &fixed.values);
    let mut facts: BTreeMap<String, String> = values
        .filter(|(key, _)| !is_place(key))
        .map(|(key, value)| (key.clone(), value.to_string()))
        .collect();
    let train = &experiment.config.train;
    facts.insert("train.steps".to_owned(), train.steps.to_string());
    // Where one is due they compare their weights.
    facts.insert(
        "train.checkpoint_every".to_owned(),
        train.checkpoint_every.to_string(),
    );
    // Other kernels round differently, and the weights would drift apart.
    if let Ok(capability) = deepsim_nets::capability() {
        let name = "the processor's instruction set".to_owned();
        facts.insert(name, format!("{capability:?}"));
    }
    facts.insert(
        "train.not_finite".to_owned(),
        format!("{:?}", train.not_finite),
    );
    // The bits of a sum depend on the threads that add it up.
    if train.shards().is_some() {
        let threads = tch::get_num_threads().to_string();
        facts.insert("the number of threads".to_owned(), threads);
    }
    facts.insert("data.train".to_owned(), manifest.train_data.clone());
    facts.insert("data.test".to_owned(), manifest.test_data.clone());
    for (table, hash) in manifest.sources() {
        facts.insert(format!("{table}.weights"), hash.to_owned());
    }
    for (name, version) in &manifest.versions {
        facts.insert(format!("the version of {name}"), version.clone());
    }
    facts
}

/// The last checkpoint of a run that was killed before its last line was in the log.
fn unwritten(run: &RunDir, step: u64) -> Result<Option<Box<Checkpoint>>> {
    let log = run.path().join("metrics.jsonl");
    if !log.exists() || metrics_log::last_line(&log) == Some(step) {
        return Ok(None);
    }
    let Some(newest) = Checkpoint::newest(&run.checkpoints())? else {
        return Ok(None);
    };
    let owed = !Means::restore(&newest.state()?.1).is_empty();
    Ok(owed.then(|| Box::new(newest)))
}

/// A finished run stays finished whatever the datasets are now. But a user who names other datasets should know that
/// they were not used.
fn tell_other_data(data: &Dataset, test: &Dataset, trained: &Manifest) {
    for (what, is, was) in [
        ("data.train", data.digest(), &trained.train_data),
        ("data.test", test.digest(), &trained.test_data),
    ] {
        if is != *was {
            tracing::warn!("{what} is another dataset than the one that this run was trained with");
        }
    }
}

/// What there is to say of a run that is done already.
pub(crate) fn finished(run: &Path, step: u64, experiment: &Experiment) {
    tracing::info!(
        "{} is already finished (step {step}): --resume --steps N goes on to N, --fresh starts over",
        shown(run)
    );
    if step == experiment.config.train.steps && is_evaluated(run, step) == Some(false) {
        tracing::info!(
            "note: its last held-out error was not measured; `deepsim-eval table2 --runs {}` does",
            shown(run)
        );
    }
}

fn remarks(experiment: &Experiment, settings: &config::Train, device: Device) -> Vec<String> {
    [
        advice(settings.precision, device).map(str::to_owned),
        fewer_scales(experiment),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// MS-SSIM on images too small for all of its scales is another measure than on large ones.
fn fewer_scales(experiment: &Experiment) -> Option<String> {
    let side = i64::from(experiment.config.data.crop);
    let scales = structural::scales(side, side);
    let fewer = experiment.config.pixels.distance == PixelDistance::MsSsim
        && scales < structural::scales(i64::MAX, i64::MAX);
    fewer.then(|| {
        format!(
            "note: MS-SSIM compares images of {side} pixels at {scales} scales instead of {}, with their \
             weights scaled to the same sum",
            structural::scales(i64::MAX, i64::MAX)
        )
    })
}

fn set_threads(threads: usize, device: Device) {
    if device.is_cuda() {
        // With a GPU, libtorch has little to do on the CPU. Its threads spin while they wait for work, and
        // would take processors from decoding and from the thread that feeds the GPU.
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

fn check_size(experiment: &Experiment, data: &Dataset) -> Result<()> {
    if experiment.config.data.scale.is_none() && experiment.config.data.crop > data.stored_size() {
        let reason = format!(
            "is {} but the images are stored at {} pixels ({}); prepare them larger or lower it",
            experiment.config.data.crop,
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

/// Errors are relative to the distance between images, so at least two are needed. All images that will be used
/// must be readable.
fn check_held_out(experiment: &Experiment, test: &Dataset) -> Result<()> {
    if test.len() < 2 {
        let reason = format!("needs at least 2 images, has {}", test.describe());
        let path = experiment.path.clone();
        return Err(ExperimentError::Invalid {
            path,
            key: "data.test".into(),
            reason,
        }
        .into());
    }
    // A corrupt one would stop the run at its first evaluation, each time that it is resumed.
    let mut shown = measure::chosen(test, experiment.config.train.eval_images);
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
) -> Result<Manifest> {
    let version = |k: &str, v: String| (k.to_owned(), v);
    let values = Fixed::of(&experiment.config).map_err(|e| ExperimentError::Toml {
        path: experiment.path.clone(),
        message: e.to_string(),
    })?;
    Ok(Manifest {
        encoder_weights: perception.encoder_hash.clone(),
        comparator_weights: perception.comparator_hash.clone(),
        comparators: perception.comparator_hashes.clone(),
        train_data: data.digest(),
        test_data: test.digest(),
        versions: BTreeMap::from([
            version("deepsim", env!("CARGO_PKG_VERSION").to_owned()),
            version("libtorch", deepsim_nets::torch_version()),
        ]),
        experiment: Some(values),
        framing: Some(test.framing()),
        ..Manifest::of(
            experiment.generator.clone(),
            experiment.trained_discriminator().cloned(),
        )
    })
}

/// A resumed run must see the weights and images that it began with.
fn same_inputs(run: &Path, now: &Manifest, then: &Manifest) -> Result<()> {
    let data = [
        ("data.train", &now.train_data, &then.train_data),
        ("data.test", &now.test_data, &then.test_data),
    ];
    let data = data.map(|(what, is, was)| (what.to_owned(), is.as_str(), was.as_str()));
    // What takes part is recorded. A comparator that takes none is not loaded, though earlier builds did so.
    let sources = now.sources().map(|(table, is)| {
        let was = then.sources().find(|(known, _)| *known == table);
        let was = was.map_or("nothing", |(_, was)| was);
        (format!("{table}.weights"), is, was)
    });
    for (what, is, was) in sources.chain(data) {
        if is != was {
            let cut = |s: &str| s.chars().take(16).collect();
            return Err(ExperimentError::InputChanged {
                path: run.to_owned(),
                what,
                was: cut(was),
                is: cut(is),
            }
            .into());
        }
    }
    Ok(())
}

/// What images are compared in, where features are.
fn compared_at(experiment: &Experiment) -> String {
    let names = experiment.compared_in(ToString::to_string);
    if names.is_empty() {
        names
    } else {
        format!(", compared at {names}")
    }
}

fn pixels(crop: u32) -> String {
    format!("{crop}x{crop} px")
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
        Ok(Overlap::NotComparable(why)) => {
            tracing::info!(
                "note: whether held-out images are training images, too, is not known: {why}"
            );
            Ok(None)
        }
        Err(DataError::Interrupted) => Ok(None),
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

/// What the checkpoint says that a run goes on from, where it decides on modules to run, or on arithmetic that is left open.
///
/// # Errors
/// Those of [`Checkpoint::newest`].
pub(crate) fn recorded(experiment: &Experiment, request: &Request) -> Result<Option<Manifest>> {
    if !(experiment.needs_consent() || is_open(experiment)) || request.intent == Intent::Fresh {
        return Ok(None);
    }
    let newest = Checkpoint::newest(&request.out.join("checkpoints"))?;
    Ok(newest.map(|newest| newest.manifest))
}

fn crop(experiment: &Experiment) -> i64 {
    i64::from(experiment.config.data.crop)
}

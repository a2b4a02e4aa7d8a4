//! A process that trains along with rank 0 and writes nothing.

use deepsim_data::{Batch, Loader, Part};
use deepsim_experiment::upload::to_caffe;
use deepsim_experiment::{Experiment, Manifest};
use tch::Tensor;

use crate::end::End;
use crate::error::{Result, TrainError};
use crate::method::{Images, Plan, iterate_among, iteration_seed};
use crate::preflight::{Following, facts};
use crate::ranks::{self, Ranks, Ready, Verdict};
use crate::request::Request;
use crate::signals::Stop;

/// Trains along until the last step, or until a signal to any of the processes. `recorded` is what rank 0's run has.
///
/// # Errors
/// Everything that is wrong with the experiment and its inputs, before the first step; images that cannot be read, losses
/// that are not finite, and a process that is gone or does not answer.
pub(crate) fn follow(
    experiment: &Experiment,
    request: &Request,
    recorded: Option<&Manifest>,
    stop: &Stop,
    ranks: &Ranks,
) -> Result<End> {
    let mut own = match Following::prepare(experiment, request, recorded, ranks) {
        Ok(own) => own,
        Err(error) => {
            ranks.give_up(&error);
            return Err(error);
        }
    };
    if ranks.begin(&facts(experiment, &own.manifest))? == Ready::Finished {
        return Ok(End::Done(experiment.config.train.steps));
    }
    obey(ranks, own.state.step)?;
    ranks.share_state(&mut own.state)?;
    let mut loader = own.loader()?;
    let (settings, plan) = (&experiment.config.train, Plan::of(experiment));
    while own.state.step < settings.steps {
        let (batch, x, recorded) = next(&own, &mut loader).map_err(along)?;
        loader.recycle(batch);
        let images = Images {
            x: &x,
            recorded: recorded.as_ref(),
            slice: own.share,
        };
        let seed = iteration_seed(settings.seed, own.state.step);
        iterate_among(ranks, &mut own.state, &own.perception, &images, &plan, seed)?;
        let step = own.state.step;
        let due = step.is_multiple_of(settings.checkpoint_every) || step == settings.steps;
        ranks.stop(stop.asked(), &own.state, due)?;
        stop.something_to_save();
        // Rank 0 saves before any process ends: an agent that sees one end ends the others.
        if let Some(code) = obey(ranks, step)? {
            // It may wait for a disk that does not answer.
            std::mem::forget(loader);
            return Ok(End::Stopped(step, code));
        }
    }
    Ok(End::Done(own.state.step))
}

/// This process's next images, in bytes and in Caffe units, and their features where they are recorded.
fn next(own: &Following, loader: &mut Loader) -> Result<(Batch, Tensor, Option<Tensor>)> {
    let batch = loader.next_batch()?;
    let x = to_caffe(&batch.images, own.device)?;
    let (perception, data) = (&own.perception, &own.data);
    let recorded = perception.recorded(Part::Train, data, &batch.indices)?;
    Ok((batch, x, recorded))
}

/// That of a process which has begun: nobody can mend it before the training.
fn along(error: TrainError) -> TrainError {
    TrainError::Along(Box::new(error))
}

/// Waits for rank 0's verdict on a step. The exit code with which all stop, if they do.
fn obey(ranks: &Ranks, step: u64) -> Result<Option<u8>> {
    match ranks.verdict(Verdict::GoOn)? {
        Verdict::GoOn => Ok(None),
        Verdict::Stop(code) => Ok(Some(code)),
        Verdict::NotFinite => Err(TrainError::NotFinite {
            step,
            term: "a weight, or what Adam remembers of one,".to_owned(),
            value: f64::NAN,
            newest: None,
        }),
        Verdict::Failed => Err(ranks::ended()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use deepsim_experiment::Fixed;

    use super::*;

    /// The weights that heads stand on come from rank 0, too.
    #[test]
    fn where_a_network_s_file_lies_is_no_difference() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let of = |sets: &[&str]| {
            let heads = [
                "discriminator.architecture=heads",
                "discriminator.network=alexnet",
                "discriminator.taps=[\"relu1\"]",
            ];
            let sets: Vec<String> = heads.iter().chain(sets).map(|s| (*s).to_owned()).collect();
            let experiment = Experiment::load(&file, &sets).unwrap();
            let manifest = Manifest {
                experiment: Some(Fixed::of(&experiment.config).unwrap()),
                ..Manifest::of(experiment.generator.clone(), None)
            };
            facts(&experiment, &manifest)
        };
        let here = of(&["discriminator.network_weights=here.safetensors"]);
        let there = "discriminator.network_weights=there.safetensors";
        assert_eq!(here, of(&[there]));
        assert_ne!(here, of(&[there, "discriminator.taps=[\"pool2\"]"]));
    }

    #[test]
    fn another_version_of_the_program_is_a_difference() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/quickstart.toml");
        let experiment = Experiment::load(&file, &[]).unwrap();
        let of = |version: &str| {
            let manifest = Manifest {
                versions: [("deepsim".to_owned(), version.to_owned())].into(),
                ..Manifest::of(
                    experiment.generator.clone(),
                    experiment.trained_discriminator().cloned(),
                )
            };
            facts(&experiment, &manifest)
        };
        let (ours, theirs) = (of("0.1.0"), of("0.2.0"));
        let keys = ours.keys();
        let different: Vec<&String> = keys
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .collect();
        assert_eq!(different, ["the version of deepsim"]);
    }
}

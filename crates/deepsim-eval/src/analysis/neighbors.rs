//! Does the network only retrieve? Nearest training images of held-out ones, in the space of
//! pixels and of features, beside the reconstruction (Section 4.1 of the paper).

use deepsim_data::Dataset;
use deepsim_experiment::evaluate::reconstruct;
use deepsim_experiment::experiment::ComparatorSource;
use deepsim_experiment::measure;
use deepsim_experiment::source::{NetSource, Source};
use deepsim_experiment::{Clip, Processes};
use deepsim_nets::Tap;
use serde::Serialize;
use tch::Tensor;

use crate::error::{EvalError, Result};
use crate::measure::metrics::features_at;
use crate::measure::photos::{
    LeftOut, categories, category, from_data, narrowed, of_training, picked, short_name,
};
use crate::measure::scale::{Scale, distances, mean};
use crate::run::catalog::decoded_name;
use crate::run::loaded::{HeldOutImages, Loaded};
use crate::search::{Searcher, Settings, rows};
use crate::show::sheet::{Sheet, images};

/// Training images that pass the searches as one block.
const BLOCK: usize = 128;

/// What nearest neighbours of one space are like, over all held-out images asked for.
/// Errors are percent of the mean distance between different held-out images.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Run directory.
    pub run: String,
    /// `pixels`, `NET:TAP`, or `reconstruction` for what the generator makes.
    pub space: String,
    /// Values of a sample in this space.
    pub length: Option<usize>,
    /// Mean error of pixels to the held-out image.
    pub image_error: f64,
    /// Mean error of the inverted features to the held-out image's.
    pub feature_error: f64,
    /// Share of original images whose neighbour is farther from them in pixels than the reconstruction.
    pub reconstruction_nearer_image: Option<f64>,
    /// The same in the inverted features.
    pub reconstruction_nearer_feature: Option<f64>,
    /// Share of nearest neighbours of the same category, among images whose category the
    /// training set has.
    pub same_category: Option<f64>,
    /// What that share would be if neighbours were drawn at random.
    pub same_category_by_chance: Option<f64>,
    /// Held-out images.
    pub n: usize,
    /// Those whose category the training set has.
    pub n_category: usize,
    /// Images whose pairs distances are relative to.
    pub n_pairs_from: usize,
}

/// A training image that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Index in the training set.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Whether its mirror image was nearer.
    pub mirrored: bool,
    /// Distance in the space that was searched.
    pub distance: f64,
}

/// Everything that was found for some images of one run.
#[derive(Debug)]
pub struct Neighborhood {
    /// Names of the held-out images.
    pub names: Vec<String>,
    /// They, `[N,3,S,S]` in Caffe units.
    pub photos: Tensor,
    /// What the generator makes of them.
    pub reconstructions: Tensor,
    /// For each space its name and, for each image, the nearest training images.
    pub spaces: Vec<(String, Vec<Vec<Found>>)>,
    /// For each space the nearest training images themselves, as `photos`.
    pub nearest: Vec<Tensor>,
    /// The reconstruction, then every space.
    pub rows: Vec<Row>,
}

/// A space to search in: a name and what it makes of images in Caffe units.
struct Space<'a> {
    name: String,
    #[allow(clippy::type_complexity)]
    features: Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>,
}

/// Layers of the encoder that are searched besides the inverted one: deep and shallow ones.
const LAYERS: [Tap; 4] = [Tap::Pool1, Tap::Pool2, Tap::Pool5, Tap::Relu6];

fn spaces(run: &Loaded) -> Result<Vec<Space<'_>>> {
    let mut spaces = vec![Space {
        name: "pixels".to_owned(),
        features: Box::new(|x| Ok(x.shallow_clone())),
    }];
    let encoder = &run.experiment.encoder;
    if let Some(source) = encoder.network() {
        let at = |tap: Tap| source.net.table().iter().position(|(t, _)| *t == tap);
        for tap in LAYERS {
            if at(tap).is_some() && at(tap) < at(source.tap) {
                let at_tap = NetSource {
                    tap,
                    ..source.clone()
                };
                let net = at_tap.load(run.device)?;
                spaces.push(Space {
                    name: format!("{}:{tap}", source.net),
                    features: Box::new(move |x| features_at(&net, tap, x)),
                });
            }
        }
    }
    spaces.push(Space {
        name: match run.experiment.config.latent {
            Some(_) => decoded_name(&run.experiment),
            None => encoder.to_string(),
        },
        features: Box::new(|x| Ok(run.perception.encode(x)?)),
    });
    // Whose each name is: all spaces until here are the encoder's.
    let origin = encoder.origin();
    let mut origins: Vec<(String, String)> = spaces
        .iter()
        .map(|space| (space.name.clone(), origin.clone()))
        .collect();
    for ComparatorSource {
        term,
        source: comparator,
        ..
    } in run.experiment.compared()
    {
        // The one that trains along is there while a run trains, and a metric is a distance and no space.
        if matches!(comparator, Source::Discriminator(_) | Source::Perceptual(_)) {
            continue;
        }
        // The same layer of a network with other weights is another space.
        let (plain, origin) = (comparator.to_string(), comparator.origin());
        let taken = spaces.iter().any(|s| s.name == plain);
        let name = if taken && !origins.contains(&(plain.clone(), origin.clone())) {
            format!("{plain} of {origin}")
        } else {
            plain.clone()
        };
        origins.push((plain, origin));
        spaces.push(Space {
            name,
            features: Box::new(move |x| {
                let found = run.perception.compare_at(term, x)?;
                found.ok_or_else(|| EvalError::Format(format!("no features of {comparator}")))
            }),
        });
    }
    let mut names = std::collections::BTreeSet::new();
    spaces.retain(|s| names.insert(s.name.clone()));
    Ok(spaces)
}

/// Finds the `k` nearest training images (as evaluations see them; where training mirrors,
/// their mirror images too) of held-out ones, exactly, in every space. Training images pass
/// in blocks: memory does not grow with them. `progress` is told of each training image.
///
/// # Errors
/// Unreadable images, `k` of 0, or what the networks refuse.
pub fn compute(
    run: &Loaded,
    of: &HeldOutImages,
    k: usize,
    scale: &Scale,
    progress: impl FnMut(u64),
) -> Result<Neighborhood> {
    compute_among(&Processes::alone(), run, of, k, scale, progress)
}

/// The same by several processes: batches of held-out images and blocks of training images are dealt to them. What each has
/// found is merged, by distance and then by index, and that is what one process finds. `progress` is told of all training
/// images.
///
/// # Errors
/// As [`compute`]; those of another process.
pub fn compute_among(
    processes: &Processes,
    run: &Loaded,
    of: &HeldOutImages,
    k: usize,
    scale: &Scale,
    progress: impl FnMut(u64),
) -> Result<Neighborhood> {
    let _guard = tch::no_grad_guard();
    let asked = Asked {
        processes,
        run,
        of,
        scale,
    };
    let opened = || -> Result<_> {
        let train = run.train_data()?;
        let photos = from_data(&of.data, &of.chosen, &of.augment, run.device)?;
        Ok((train, photos, spaces(run)?))
    };
    let (train, photos, spaces) = processes.together(opened())?;
    let queries: Vec<(Vec<f32>, usize)> = spaces
        .iter()
        .map(|s| Ok(rows(&in_batches(processes, &photos, &*s.features)?)?))
        .collect::<Result<_>>()?;
    // A mirror image may be as near as its image: twice as many make k different ones sure.
    let sides = if run.experiment.config.data.mirror {
        2
    } else {
        1
    };
    let pass = Pass {
        train: &train,
        spaces: &spaces,
        queries: &queries,
        nearest: k * sides,
        sides,
    };
    let own = pass.found_here(&asked, progress);
    let own = own.map(|numbers| vec![(processes.rank(), numbers)]);
    let numbers = processes.gathered(own, processes.size())?;
    let damaged: f64 = numbers.iter().filter_map(|of_one| of_one.first()).sum();
    let allowed = LeftOut::of(&run.experiment).allowed();
    if damaged as usize > allowed {
        return Err(EvalError::Damaged {
            found: damaged as usize,
            allowed,
        });
    }
    let nearest = |list: &Vec<Candidate>| {
        let mut found: Vec<Found> = Vec::new();
        for candidate in list {
            let (index, side) = (candidate.row / sides, candidate.row % sides);
            if found.len() < k && found.iter().all(|f| f.index != index) {
                found.push(Found {
                    index,
                    name: train.name(index).to_owned(),
                    mirrored: side == 1,
                    distance: candidate.squared.sqrt(),
                });
            }
        }
        found
    };
    let found: Vec<(String, Vec<Vec<Found>>)> = spaces
        .iter()
        .zip(pass.merged(&numbers, of.chosen.len()))
        .map(|(space, lists)| (space.name.clone(), lists.iter().map(nearest).collect()))
        .collect();
    compared(&asked, &train, photos, found, &queries)
}

/// What is asked, and by whom.
struct Asked<'a> {
    processes: &'a Processes,
    run: &'a Loaded,
    of: &'a HeldOutImages,
    scale: &'a Scale,
}

/// The training images on their way past the searches.
struct Pass<'a> {
    train: &'a Dataset,
    spaces: &'a [Space<'a>],
    /// Rows of the held-out images in each space, and their length.
    queries: &'a [(Vec<f32>, usize)],
    /// Rows to find for each query.
    nearest: usize,
    /// Rows of an image: 2 with its mirror image.
    sides: usize,
}

/// A row of the training images that may be near: `sides` times the image's index, plus 1 for its mirror image.
#[derive(Clone, Copy)]
struct Candidate {
    squared: f64,
    row: usize,
}

impl Pass<'_> {
    /// Looks through this process's blocks. Gives the number of damaged images, then for each space and query how many rows
    /// are nearest, and of each its squared distance and its number.
    fn found_here(&self, asked: &Asked<'_>, mut progress: impl FnMut(u64)) -> Result<Vec<f64>> {
        let Asked {
            processes, run, of, ..
        } = *asked;
        let settings = Settings::default();
        let mut searches = Vec::with_capacity(self.spaces.len());
        for (data, length) in self.queries {
            searches.push(Searcher::new(data, *length, self.nearest, &settings)?);
        }
        let (mut kept, mut left_out) = (Vec::new(), LeftOut::of(&run.experiment));
        for (number, from) in (0..self.train.len()).step_by(BLOCK).enumerate() {
            let to = self.train.len().min(from + BLOCK);
            if processes.is_own(number) {
                let block: Vec<usize> = (from..to).collect();
                let (block, x) =
                    of_training(self.train, &block, &of.augment, &mut left_out, run.device)?;
                if block.is_empty() {
                    continue;
                }
                kept.extend(block);
                // Image, mirror image, next image …: index / 2 is the image.
                let x = match self.sides {
                    2 => Tensor::f_stack(&[&x, &x.f_flip([3])?], 1)?.f_flatten(0, 1)?,
                    _ => x,
                };
                for (space, search) in self.spaces.iter().zip(&mut searches) {
                    let features = in_batches(&Processes::alone(), &x, &*space.features)?;
                    search.add(&rows(&features)?.0)?;
                }
            }
            progress((to - from) as u64);
        }
        let mut numbers = vec![left_out.found() as f64];
        // A process may have had no block; one that is alone says that there was none.
        let nothing = kept.is_empty() && processes.size() > 1;
        for search in searches {
            let neighbors = if nothing {
                None
            } else {
                Some(search.finish()?)
            };
            for query in 0..of.chosen.len() {
                let (rows, squared) = match &neighbors {
                    Some(found) => (found.indices(query), found.squared(query)),
                    None => Default::default(),
                };
                numbers.push(rows.len() as f64);
                for (&row, &squared) in rows.iter().zip(squared) {
                    let (place, side) = (row as usize / self.sides, row as usize % self.sides);
                    // Exact: far below 2⁵³.
                    numbers.extend([squared, (kept[place] * self.sides + side) as f64]);
                }
            }
        }
        Ok(numbers)
    }

    /// The nearest rows for each space and query, of what all processes have found: nearest first, equally near ones by
    /// their number.
    fn merged(&self, numbers: &[Vec<f64>], queries: usize) -> Vec<Vec<Vec<Candidate>>> {
        let mut all = vec![vec![Vec::new(); queries]; self.spaces.len()];
        for of_one in numbers {
            let mut rest = of_one.iter().copied().skip(1);
            for list in all.iter_mut().flatten() {
                let count = rest.next().unwrap_or_default() as usize;
                for _ in 0..count {
                    if let (Some(squared), Some(row)) = (rest.next(), rest.next()) {
                        let row = row as usize;
                        list.push(Candidate { squared, row });
                    }
                }
            }
        }
        for list in all.iter_mut().flatten() {
            list.sort_by(|a, b| a.squared.total_cmp(&b.squared).then(a.row.cmp(&b.row)));
            list.truncate(self.nearest);
        }
        all
    }
}

fn in_batches(
    processes: &Processes,
    x: &Tensor,
    features: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let n = x.size()[0] as usize;
    measure::in_batches_among(processes, n, |batch| features(&narrowed(x, &batch)?))
}

/// The second half of [`compute`].
fn compared(
    asked: &Asked<'_>,
    train: &Dataset,
    photos: Tensor,
    spaces: Vec<(String, Vec<Vec<Found>>)>,
    queries: &[(Vec<f32>, usize)],
) -> Result<Neighborhood> {
    let Asked {
        processes,
        run,
        of,
        scale,
    } = *asked;
    let (test, held_out) = (&of.data, &of.chosen);
    let encode = |x: &Tensor| in_batches(processes, x, &|x| Ok(run.perception.encode(x)?));
    let features = encode(&photos)?;
    let reconstructions = in_batches(processes, &photos, &|x| {
        Ok(reconstruct(
            &run.perception,
            &run.generator,
            x,
            Clip::Displayable,
        )?)
    })?;
    let errors = |x: &Tensor| -> Result<(Vec<f64>, Vec<f64>)> {
        Ok((distances(x, &photos)?, distances(&encode(x)?, &features)?))
    };
    let own = errors(&reconstructions)?;
    let name = run.path.display().to_string();
    let counts = categories(train);
    let shown: Vec<String> = held_out.iter().map(|&i| category(test, i)).collect();
    let known: Vec<usize> = (0..held_out.len())
        .filter(|&q| !shown[q].is_empty() && counts.contains_key(&shown[q]))
        .collect();
    let share = |count: usize, of: usize| (of > 0).then(|| count as f64 / of as f64);
    let chance: f64 = known
        .iter()
        .map(|&q| counts[&shown[q]] as f64 / train.len() as f64)
        .sum();
    let mut rows = vec![Row {
        run: name.clone(),
        space: "reconstruction".to_owned(),
        length: None,
        image_error: scale.image_percent(mean(&own.0)),
        feature_error: scale.feature_percent(mean(&own.1)),
        reconstruction_nearer_image: None,
        reconstruction_nearer_feature: None,
        same_category: None,
        same_category_by_chance: None,
        n: held_out.len(),
        n_category: known.len(),
        n_pairs_from: scale.n,
    }];
    let mut nearest = Vec::new();
    for ((space, found), (_, length)) in spaces.iter().zip(queries) {
        let mut found_images = Vec::with_capacity(found.len());
        for list in found {
            let Some(first) = list.first() else {
                return Err(EvalError::Format("a search found nothing".to_owned()));
            };
            let x = from_data(train, &[first.index], &of.augment, run.device)?;
            found_images.push(if first.mirrored { x.f_flip([3])? } else { x });
        }
        let found_images = Tensor::f_cat(&found_images, 0)?;
        let theirs = errors(&found_images)?;
        let nearer = |ours: &[f64], theirs: &[f64]| {
            let won = ours.iter().zip(theirs).filter(|(a, b)| a < b).count();
            share(won, ours.len())
        };
        let same = known.iter().filter(|&&q| {
            let first = found[q].first();
            first.is_some_and(|f| category(train, f.index) == shown[q])
        });
        rows.push(Row {
            run: name.clone(),
            space: space.clone(),
            length: Some(*length),
            image_error: scale.image_percent(mean(&theirs.0)),
            feature_error: scale.feature_percent(mean(&theirs.1)),
            reconstruction_nearer_image: nearer(&own.0, &theirs.0),
            reconstruction_nearer_feature: nearer(&own.1, &theirs.1),
            same_category: share(same.count(), known.len()),
            same_category_by_chance: (!known.is_empty()).then(|| chance / known.len() as f64),
            n: held_out.len(),
            n_category: known.len(),
            n_pairs_from: scale.n,
        });
        nearest.push(found_images);
    }
    Ok(Neighborhood {
        names: held_out.iter().map(|&i| test.name(i).to_owned()).collect(),
        photos,
        reconstructions,
        spaces,
        nearest,
        rows,
    })
}

impl Neighborhood {
    /// Original images, reconstructions and the nearest training images of every space, `shown`
    /// columns at most, spread evenly.
    ///
    /// # Errors
    /// None of ours.
    pub fn sheet(&self, title: &str, shown: usize) -> Result<Sheet> {
        let columns = deepsim_data::spread(shown.max(1), self.names.len());
        let few = |x: &Tensor| -> Result<_> { images(&picked(x, &columns)?) };
        let mut sheet = Sheet::new(title);
        sheet.columns = columns
            .iter()
            .map(|&i| short_name(&self.names[i]))
            .collect();
        sheet.row("photo", few(&self.photos)?);
        sheet.row("reconstruction", few(&self.reconstructions)?);
        for ((space, _), found_images) in self.spaces.iter().zip(&self.nearest) {
            sheet.row(&format!("nearest in {space}"), few(found_images)?);
        }
        Ok(sheet)
    }
}

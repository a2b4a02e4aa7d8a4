//! Weights and images in words, so that nobody takes them for the paper's.

use std::path::Path;

use deepsim_experiment::source::Source;

use crate::measure::sample::{PLACE, packages};

/// Sets of images that have a name, by where set-up puts them: the sample photos, those of earlier versions, and the
/// labelled ones.
const NAMES: [(&str, &str); 3] = [
    (PLACE, "Debian photo crops"),
    ("data/sample", "GCompris photo crops"),
    ("data/labelled", "labelled photos of ILSVRC-2012"),
];

/// Images: a set by its name, with its packages where some are missing, others by their folder.
pub(super) fn data(path: &Path) -> String {
    let text = path.display().to_string();
    let of = packages(path).map_or_else(String::new, |packages| format!(" of {packages}"));
    match NAMES.iter().find(|(place, _)| text.contains(place)) {
        Some((_, name)) => format!("{name}{of} ({text})"),
        None => text,
    }
}

/// Weights of an encoder or comparator.
pub(super) fn weights(source: &Source) -> String {
    let origin = source.origin();
    let Some(network) = source.network() else {
        return if origin.is_empty() {
            source.to_string()
        } else {
            format!("{source}, {origin}")
        };
    };
    let net = network.net.info().label;
    if source.learned() {
        format!("{net} ({origin})")
    } else {
        format!(
            "layers of {net}, {}",
            origin.replace(':', " weights, seed ")
        )
    }
}

/// Seconds as a person says them.
pub(super) fn duration(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match minutes {
        m if m < 1.0 => format!("{seconds:.0} s"),
        m if m < 90.0 => format!("{m:.0} min"),
        m => format!("{:.1} h", m / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_images_have_a_name() {
        let sample = data(Path::new("data/debian/test"));
        assert_eq!(sample, "Debian photo crops (data/debian/test)");
        let earlier = data(Path::new("data/sample/test"));
        assert_eq!(earlier, "GCompris photo crops (data/sample/test)");
        assert_eq!(data(Path::new("/mine")), "/mine");
        assert_eq!(duration(42.0), "42 s");
        assert_eq!(duration(4000.0), "67 min");
        assert_eq!(duration(7200.0), "2.0 h");
    }
}

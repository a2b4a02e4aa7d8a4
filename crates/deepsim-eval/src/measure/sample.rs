//! The sample photos: which Debian packages a set of them is from.

use std::collections::BTreeSet;
use std::path::Path;

use deepsim_data::{Dataset, Part};

/// Where set-up prepares them.
pub const PLACE: &str = "data/debian";

/// The packages that there may be, and the folders of their photos, as `data/manifests/photos.toml` names them.
const PACKAGES: [(&str, &[&str]); 7] = [
    (
        "gcompris-qt-data",
        &[
            "categorization",
            "explore_monuments",
            "erase",
            "explore_world_animals",
            "explore_farm_animals",
            "explore_world_music",
        ],
    ),
    (
        "scratch",
        &[
            "scratch_indoors",
            "scratch_nature",
            "scratch_outdoors",
            "scratch_sports",
        ],
    ),
    ("plasma-workspace-data", &["plasma"]),
    ("gnome-control-center-data", &["gnome"]),
    ("tuxpaint-data", &["tuxpaint"]),
    ("lomiri-wallpapers-16.04", &["lomiri"]),
    ("palapeli-data", &["palapeli"]),
];

/// The packages that a part of the sample photos is from, where set-up did not find all of them; none where it did, and for
/// other images. The other parts of the split count too: a small package may have no photo in one of them.
pub fn packages(path: &Path) -> Option<String> {
    if !path.display().to_string().contains(PLACE) {
        return None;
    }
    let above = path.parent()?;
    let mut groups = BTreeSet::new();
    for part in Part::ALL {
        if let Ok(data) = Dataset::open(&above.join(part.name())) {
            let names = (0..data.len()).filter_map(|index| data.name(index).split_once('/'));
            groups.extend(names.map(|(group, _)| group.to_owned()));
        }
    }
    of(&groups)
}

fn of(groups: &BTreeSet<String>) -> Option<String> {
    let is_there = |own: &[&str]| own.iter().any(|group| groups.contains(*group));
    let there: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, own)| is_there(own))
        .map(|(name, _)| *name)
        .collect();
    (!there.is_empty() && there.len() < PACKAGES.len()).then(|| there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_by_their_folders_where_some_are_missing() {
        let found = |groups: &[&str]| of(&groups.iter().map(|g| (*g).to_owned()).collect());
        assert_eq!(found(&["erase"]).unwrap(), "gcompris-qt-data");
        assert_eq!(
            found(&["erase", "scratch_sports", "plasma"]).unwrap(),
            "gcompris-qt-data, scratch, plasma-workspace-data"
        );
        let all: Vec<&str> = PACKAGES.iter().map(|(_, own)| own[0]).collect();
        assert_eq!(found(&all), None);
        assert_eq!(found(&["mine"]), None);
        assert_eq!(packages(Path::new("/mine/test")), None);
    }

    #[test]
    fn they_are_those_of_the_manifest() {
        let text = include_str!("../../../../data/manifests/photos.toml");
        let named = text.lines().filter_map(|line| {
            let name = line.strip_prefix("name = \"")?;
            name.strip_suffix('"')
        });
        // The first is the set's own.
        let named: Vec<&str> = named.skip(1).collect();
        let ours = PACKAGES.iter().flat_map(|(name, groups)| {
            let own = std::iter::once(*name);
            own.chain(groups.iter().copied())
        });
        assert_eq!(ours.collect::<Vec<_>>(), named);
    }
}

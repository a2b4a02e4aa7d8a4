//! `data/manifests/photos.toml`: which packages the sample photos are from; see there for the meaning of its keys.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

use deepsim_tools::files;
use deepsim_tools::workspace::Workspace;

/// Where the manifest is.
pub const FILE: &str = "data/manifests/photos.toml";

/// The page that names the photos which images in Git show.
const PICTURES: &str = "docs/pictures/SOURCES.md";

/// The manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    pub minimum: usize,
    pub packages: Vec<Package>,
}

/// A Debian package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub download_mb: u64,
    pub licence: String,
    pub shown: bool,
    #[serde(default)]
    pub known: Vec<Known>,
    pub skip: Vec<String>,
    pub groups: Vec<Group>,
}

/// A version of it whose bytes are known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub version: String,
    pub sha256: String,
}

/// Photos of a package that go to one folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    pub from: PathBuf,
    pub photos: usize,
    pub shows: String,
}

impl Manifest {
    /// Reads it.
    ///
    /// # Errors
    /// A file that is missing or not as it should be.
    pub fn read(ws: &Workspace) -> Result<Self> {
        files::toml(&ws.path(FILE))
    }

    /// Groups whose photos must not be in an image that Git holds: their licences are not known, or not such as to show
    /// pictures by.
    fn private(&self) -> impl Iterator<Item = &Group> {
        let packages = self.packages.iter().filter(|package| !package.shown);
        packages.flat_map(|package| &package.groups)
    }

    /// Which of these groups a text names photos of.
    fn named<'a>(&'a self, text: &str) -> Vec<&'a str> {
        self.private()
            .map(|group| group.name.as_str())
            .filter(|name| text.contains(&format!("{name}/")))
            .collect()
    }
}

impl Package {
    /// Is a photo left out by its name?
    pub fn skips(&self, group: &Group, stem: &str) -> bool {
        let name = format!("{}/{stem}", group.name);
        self.skip.contains(&name)
    }
}

impl Group {
    /// Do its photos come out of a Qt resource file?
    pub fn is_resource(&self) -> bool {
        self.from.extension().is_some_and(|e| e == "rcc")
    }
}

/// What is wrong with the photos that images in Git show, by the page that names them.
///
/// # Errors
/// A manifest or page that cannot be read.
pub fn wrongly_shown(ws: &Workspace) -> Result<Vec<String>> {
    let (manifest, text) = (Manifest::read(ws)?, files::text(&ws.path(PICTURES))?);
    let named = manifest.named(&text).into_iter();
    Ok(named
        .map(|group| {
            format!(
                "{PICTURES}: names a photo of {group}/, which images in Git may not show ({FILE}: shown)"
            )
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn committed() -> Manifest {
        toml::from_str(include_str!("../../../../data/manifests/photos.toml")).unwrap()
    }

    #[test]
    fn the_committed_manifest_is_valid() {
        let manifest = committed();
        let groups: Vec<&Group> = manifest.packages.iter().flat_map(|p| &p.groups).collect();
        let photos: usize = groups.iter().map(|group| group.photos).sum();
        assert!(photos >= manifest.minimum);
        // the first package alone is enough: it serves where the others are missing
        let alone: usize = manifest.packages[0].groups.iter().map(|g| g.photos).sum();
        assert!(alone >= manifest.minimum);
        let names: BTreeSet<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names.len(), groups.len(), "two groups would be one folder");
        assert!(!names.contains("licences"));
        for package in &manifest.packages {
            assert!(package.known.iter().all(|known| known.sha256.len() == 64));
            assert!(package.skip.iter().all(|skip| {
                let mut groups = package.groups.iter();
                groups.any(|group| skip.starts_with(&format!("{}/", group.name)))
            }));
            assert!(package.groups.iter().all(|group| group.from.is_relative()));
        }
    }

    #[test]
    fn photos_that_may_not_be_shown_are_in_no_committed_image() {
        let manifest = committed();
        assert_eq!(
            manifest.named("| categorization/fish12.webp | plasma/Cat.png | lomiri/x.jpg |"),
            [""; 0]
        );
        assert_eq!(
            manifest.named("| gnome/cat.jpg | palapeli/bee.jpg"),
            ["gnome", "palapeli"]
        );
        let ws = Workspace::find(None).unwrap();
        assert_eq!(wrongly_shown(&ws).unwrap(), [""; 0]);
    }
}

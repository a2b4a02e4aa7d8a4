//! `SOURCE.txt` of the sample photos: where they are from, a block of lines for each package.

use std::fs;
use std::path::Path;

/// Name of the file.
pub const FILE: &str = "SOURCE.txt";

/// Files that earlier versions named, and where what they held is now.
const MOVED: [(&str, &str); 2] = [
    ("data/photos/copyright", "licences/gcompris-qt-data.txt"),
    ("data/manifests/gcompris.toml", super::manifest::FILE),
];

/// What it says.
#[derive(Debug, Default)]
pub struct Source {
    blocks: Vec<String>,
}

impl Source {
    /// What it says in a folder of photos; nothing where there is none.
    pub fn read(photos: &Path) -> Self {
        Self::parse(&fs::read_to_string(photos.join(FILE)).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let moved = MOVED.into_iter();
        let text = moved.fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let mut blocks: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if ["package: ", "missing: "]
                .iter()
                .any(|begin| line.starts_with(begin))
            {
                blocks.push(String::new());
            }
            if let Some(block) = blocks.last_mut() {
                block.push_str(line);
                block.push('\n');
            }
        }
        Self { blocks }
    }

    /// Adds what there is to say of a package.
    pub fn add(&mut self, block: String) {
        self.blocks.push(block);
    }

    /// Says that a package could not be had.
    pub fn miss(&mut self, package: &str) {
        self.blocks.push(format!(
            "missing: {package} (apt did not know it; without this line set-up asks again)\n"
        ));
    }

    /// Does it say anything of this package, even that it is missing?
    pub fn tells_of(&self, package: &str) -> bool {
        let name = |block: &String| block.split_whitespace().nth(1) == Some(package);
        self.blocks.iter().any(name)
    }

    /// Photos of all packages.
    pub fn photos(&self) -> usize {
        let lines = self.blocks.iter().flat_map(|block| block.lines());
        lines
            .filter_map(|line| line.strip_prefix("photos: ")?.parse::<usize>().ok())
            .sum()
    }

    /// For people: the packages by their names, and those that are missing.
    pub fn describe(&self) -> String {
        let names = |begin: &str| {
            let blocks = self.blocks.iter().filter(|block| block.starts_with(begin));
            let names: Vec<&str> = blocks
                .filter_map(|block| block.split_whitespace().nth(1))
                .collect();
            names.join(", ")
        };
        let (found, missing) = (names("package: "), names("missing: "));
        if missing.is_empty() {
            format!("of the packages {found}")
        } else {
            format!("of the packages {found}; not to be had here: {missing}")
        }
    }

    /// The file's text.
    pub fn text(&self, name: &str) -> String {
        format!("name: {name}\n\n{}", self.blocks.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As earlier versions wrote it, which knew one package.
    const EARLIER: &str = "name: GCompris photo crops\npackage: gcompris-qt-data 3.1-2 (Debian)\nsha256: e9\n\
                           verified: by the sha256 in data/manifests/gcompris.toml\n\
                           licence: per image; see data/photos/copyright\nphotos: 254\n";

    #[test]
    fn an_earlier_file_goes_on_with_further_packages() {
        let mut source = Source::parse(EARLIER);
        assert!(source.tells_of("gcompris-qt-data") && !source.tells_of("gcompris"));
        assert_eq!(source.photos(), 254);
        source.add("package: scratch 1.4 (Debian)\nphotos: 50\n".to_owned());
        source.miss("palapeli-data");
        let text = source.text("Debian photo crops");
        assert!(text.starts_with("name: Debian photo crops\n\npackage: gcompris-qt-data 3.1-2"));
        assert!(text.contains("\npackage: scratch"), "{text}");
        // What it named has moved.
        assert!(
            text.contains("see licences/gcompris-qt-data.txt\n"),
            "{text}"
        );
        assert!(
            text.contains("sha256 in data/manifests/photos.toml\n"),
            "{text}"
        );
        let again = Source::parse(&text);
        assert_eq!(again.text("Debian photo crops"), text);
        assert_eq!(again.photos(), 304);
        for package in ["gcompris-qt-data", "scratch", "palapeli-data"] {
            assert!(again.tells_of(package));
        }
        assert!(!again.tells_of("plasma-workspace-data"));
        assert_eq!(
            again.describe(),
            "of the packages gcompris-qt-data, scratch; not to be had here: palapeli-data"
        );
    }
}

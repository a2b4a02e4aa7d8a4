//! What a source holds besides the images that are taken: counted, and named in words.

use std::collections::BTreeMap;

use crate::terminal::one_line;
use serde::{Deserialize, Serialize};

/// Names that are kept of each group.
const NAMED: usize = 3;
/// Endings that are listed one by one.
const ENDINGS: usize = 8;
/// Longest text behind the last dot that counts as an ending.
const LONGEST: usize = 12;

/// Image formats of cameras and programs that are not read here.
const CONVERTIBLE: [&str; 26] = [
    "heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "jpx", "psd", "xcf", "svg", "exr", "hdr",
    "tga", "ico", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "srw", "pef", "raw",
];
/// Archives that have to be unpacked.
const PACKED: [&str; 10] = [
    "zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "lz4", "lzma",
];

/// Things of one kind: how many, and what the first are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    count: usize,
    first: Vec<String>,
}

impl Group {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(name.to_owned());
        }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `2 links (a, b)`.
    fn words(&self, one: &str, many: &str) -> Option<String> {
        let what = match self.count {
            0 => return None,
            1 => one,
            _ => many,
        };
        let more = if self.count > self.first.len() {
            ", …"
        } else {
            ""
        };
        Some(format!(
            "{} {what} ({}{more})",
            self.count,
            one_line(&self.first.join(", "))
        ))
    }
}

/// Why something in a source is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A file of another kind, by its ending.
    Other,
    /// A hidden file or folder.
    Hidden,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Special,
    /// A tar deeper in than tars are looked into.
    Archive,
    /// A folder that the system does not let us list.
    Unreadable,
    /// A name that cannot stand in a manifest.
    NotUtf8,
    /// A member of a tar that is stored with holes.
    Sparse,
    /// A hard link in a tar to something that is not there, or is no image.
    HardLink,
    /// A member of a tar that comes again later.
    Repeated,
    /// An image beside the synset folders, or among ILSVRC-2012's validation images.
    Stray,
    /// Data behind the end of a tar that are no tar.
    Trailing,
    /// A tar in the tar that holds nothing.
    Hollow,
    /// The end of a tar that ends without its mark.
    Unended,
}

/// What was not taken. Stored beside a prepared dataset's manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Skipped {
    /// Files of other kinds: how many, by ending; an empty one for files without.
    endings: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Group::is_empty")]
    hidden: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    links: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    special: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    archives: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    unreadable: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    not_utf8: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    sparse: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    hard_links: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    repeated: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    strays: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    trailing: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    hollow: Group,
    #[serde(skip_serializing_if = "Group::is_empty")]
    unended: Group,
}

impl Skipped {
    /// Counts something that is not taken.
    pub(crate) fn add(&mut self, why: Why, name: &str) {
        let group = match why {
            Why::Other => {
                *self.endings.entry(ending(name)).or_default() += 1;
                return;
            }
            Why::Hidden => &mut self.hidden,
            Why::Link => &mut self.links,
            Why::Special => &mut self.special,
            Why::Archive => &mut self.archives,
            Why::Unreadable => &mut self.unreadable,
            Why::NotUtf8 => &mut self.not_utf8,
            Why::Sparse => &mut self.sparse,
            Why::HardLink => &mut self.hard_links,
            Why::Repeated => &mut self.repeated,
            Why::Stray => &mut self.strays,
            Why::Trailing => &mut self.trailing,
            Why::Hollow => &mut self.hollow,
            Why::Unended => &mut self.unended,
        };
        group.add(name);
    }

    /// In words; `None` if nothing was skipped.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let mut words = self.endings();
        let groups = [
            (
                &self.strays,
                "image that is not one of ILSVRC-2012",
                "images that are not of ILSVRC-2012",
            ),
            (
                &self.hidden,
                "hidden file or folder",
                "hidden files or folders",
            ),
            (
                &self.links,
                "symbolic link, which is not followed",
                "symbolic links, which are not followed",
            ),
            (
                &self.archives,
                "tar archive: give it as the source",
                "tar archives: give one of them as the source",
            ),
            (
                &self.unreadable,
                "folder that may not be read",
                "folders that may not be read",
            ),
            (
                &self.not_utf8,
                "name that is not UTF-8: rename it",
                "names that are not UTF-8: rename them",
            ),
            (
                &self.repeated,
                "earlier version of a member that the archive holds again later",
                "earlier versions of members that the archive holds again later",
            ),
            (
                &self.hard_links,
                "hard link to what is no image of the archive",
                "hard links to what are no images of the archive",
            ),
            (
                &self.sparse,
                "sparse member: unpack the archive",
                "sparse members: unpack the archive",
            ),
            (
                &self.special,
                "device, pipe or socket",
                "devices, pipes or sockets",
            ),
            (
                &self.trailing,
                "stretch of data behind the archive's end that is no tar",
                "stretches of data behind an archive's end that are no tar",
            ),
            (
                &self.hollow,
                "tar archive with nothing in it",
                "tar archives with nothing in them",
            ),
            (
                &self.unended,
                "end of a tar archive without an end mark, maybe cut",
                "ends of tar archives without an end mark, maybe cut",
            ),
        ];
        words.extend(
            groups
                .iter()
                .filter_map(|(group, one, many)| group.words(one, many)),
        );
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// `2 .heic (convert them to JPEG first)`, `1 .db`; what could be used comes first.
    fn endings(&self) -> Vec<String> {
        let hint = |ending: &str, count: usize| {
            let them = if count == 1 { "it" } else { "them" };
            if CONVERTIBLE.contains(&ending) {
                format!(" (convert {them} to JPEG first)")
            } else if PACKED.contains(&ending) {
                format!(" (unpack {them} first)")
            } else {
                String::new()
            }
        };
        let mut listed: Vec<(&str, usize)> = self
            .endings
            .iter()
            .map(|(ending, n)| (ending.as_str(), *n))
            .collect();
        listed.sort_by_key(|(ending, count)| hint(ending, *count).is_empty());
        let rest: usize = listed.iter().skip(ENDINGS).map(|(_, count)| count).sum();
        listed.truncate(ENDINGS);
        let mut words: Vec<String> = listed
            .into_iter()
            .map(|(ending, count)| match (ending, count) {
                ("", 1) => "1 file without an ending that is no image".into(),
                ("", _) => format!("{count} files without an ending that are no images"),
                _ => format!("{count} .{}{}", one_line(ending), hint(ending, count)),
            })
            .collect();
        match rest {
            0 => {}
            1 => words.push("1 other file".into()),
            _ => words.push(format!("{rest} other files")),
        }
        words
    }
}

/// A file name's ending in small letters; empty if it has none.
pub(super) fn ending(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((_, end)) if !end.is_empty() && end.chars().count() <= LONGEST => end.to_lowercase(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_used_is_named_first_and_with_what_to_do() {
        let mut skipped = Skipped::default();
        assert_eq!(skipped.describe(), None);
        for name in ["a.HEIC", "b/c.heic", "Thumbs.db", "notes.txt", "README"] {
            skipped.add(Why::Other, name);
        }
        for name in ["x", "y", "z", "w"] {
            skipped.add(Why::Link, name);
        }
        assert_eq!(
            skipped.describe().unwrap(),
            "2 .heic (convert them to JPEG first), 1 file without an ending that is no image, 1 .db, 1 .txt, \
             4 symbolic links, which are not followed (x, y, z, …)"
        );
    }

    #[test]
    fn many_endings_are_summed_up_and_none_is_lost() {
        let mut skipped = Skipped::default();
        for index in 0..20 {
            skipped.add(Why::Other, &format!("a.e{index:02}"));
        }
        let words = skipped.describe().unwrap();
        assert!(words.ends_with("12 other files"), "{words}");
    }
}

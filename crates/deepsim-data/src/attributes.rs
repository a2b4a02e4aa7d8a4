//! Attributes of images, by the images' names: who wears glasses, who smiles.
//!
//! Three formats are read, told apart by their content:
//!
//! ```text
//! CelebA, list_attr_celeba.txt      LFW, lfw_attributes.txt (tabs)        our own, any name.csv
//! 202599                            # a comment                           name,glasses,smiling
//! 5_o_Clock_Shadow Eyeglasses …     #  person  imagenum  Male  Eyeglasses s1/1.pgm,0,1
//! 000001.jpg -1  1 …                Aaron Eckhart  1  1.568  -0.93        s1/2.pgm,,0
//! ```
//!
//! * CelebA: the number of images, the attributes' names, then an image a line; 1 is yes, −1 no.
//! * LFW: a person and the number of the image of that person, then the outputs of classifiers;
//!   above 0 is yes, below no, 0 itself not known. The image is
//!   `Person_Name/Person_Name_0001.jpg`, as in LFW's archives.
//! * Our own: 1 is yes, 0 no, an empty value not known. No quotes; neither names nor values contain
//!   a comma.
//!
//! Blank lines count for nothing, and neither do spaces around a value. A row belongs to every
//! image whose path ends with the row's name in whole components: `000001.jpg` to
//! `img_align_celeba/000001.jpg`, `s1/1.pgm` to `train/s1/1.pgm` but not to `sets1/1.pgm`. Where
//! several rows do (`1.pgm` and `s1/1.pgm`), the longest name counts; the same name twice is an
//! error, so that an image's attributes never hang on the order of rows. Names, of images and of
//! attributes, are compared as [`canonical`] has them: a leading `./` or accents stored apart make no other name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::read;
use crate::error::DataError;
use crate::names::{canonical, visible};
use crate::source::metadata;

/// Largest file that is read, in bytes; CelebA's has 27 million.
pub const MAX_FILE: u64 = 128 << 20;

/// How LFW's header line begins.
const LFW_HEADER: &str = "#\tperson\timagenum\t";
/// Names that a message lists at most.
const LISTED: usize = 100;
/// Characters of a foreign text that a message shows at most.
const SHOWN: usize = 60;

/// Attributes of images: a table of yes, no and not known.
#[derive(Clone, Debug)]
pub struct Attributes {
    path: PathBuf,
    names: Vec<String>,
    rows: HashMap<Box<str>, usize>,
    /// Row by row, `names.len()` each.
    values: Vec<Option<bool>>,
}

impl Attributes {
    /// Reads a file in any of the three formats.
    ///
    /// # Errors
    /// [`DataError::Missing`], [`DataError::Unreadable`], and those of [`Attributes::parse`].
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let found = metadata(path)?;
        let refused = |reason: String| DataError::AttributesFile {
            path: path.into(),
            reason,
        };
        if !found.is_file() {
            return Err(refused("it is no regular file".into()));
        }
        if found.len() > MAX_FILE {
            return Err(refused(format!(
                "it has {} bytes and at most {MAX_FILE} are read",
                found.len()
            )));
        }
        Self::parse(&read(path)?, path)
    }

    /// Reads a file's content; `path` is for messages.
    ///
    /// # Errors
    /// [`DataError::AttributesFile`] for an empty file, another format, a table without attributes
    /// or without images, a count that does not match; [`DataError::AttributesLine`] for a line
    /// with too few or too many values, a value that is none, a name that stands there twice, and
    /// what is not UTF-8.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, DataError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| DataError::AttributesLine {
            path: path.into(),
            line: 1 + bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count(),
            reason: "it is not UTF-8: save the file as UTF-8 text".into(),
        })?;
        let mut table = Table {
            attributes: Self {
                path: path.into(),
                names: Vec::new(),
                rows: HashMap::new(),
                values: Vec::new(),
            },
            lines: Vec::new(),
        };
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim().is_empty())
            .peekable();
        let Some(&(_, first)) = lines.peek() else {
            return Err(table.refused("it is empty".into()));
        };
        let head = first.trim();
        if head.starts_with('#') {
            table.lfw(lines)?;
        } else if head.bytes().all(|byte| byte.is_ascii_digit()) {
            table.celeba(lines)?;
        } else if head.split(',').next().map(str::trim) == Some("name") {
            table.csv(lines)?;
        } else {
            return Err(table.refused(format!(
                "it begins with {}: a number (CelebA's list_attr_celeba.txt), a # \
                 (LFW's lfw_attributes.txt) or the header of a CSV, name,ATTRIBUTE,…, is expected",
                short(head)
            )));
        }
        table.finish()
    }

    /// The attributes' names, in the file's order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of images that the file has a row for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Never true: a file without rows is an error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The file they were read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An attribute's place in [`Attributes::names`] and in every [`Attributes::row`].
    ///
    /// # Errors
    /// [`DataError::UnknownAttribute`], which names those that exist and the nearest one.
    pub fn index(&self, attribute: &str) -> Result<usize, DataError> {
        let wanted = canonical(attribute);
        let found = self.names.iter().position(|name| *name == wanted);
        found.ok_or_else(|| {
            let mut known = self.names[..self.names.len().min(LISTED)].join(", ");
            if self.names.len() > LISTED {
                known += &format!(" and {} more", self.names.len() - LISTED);
            }
            let nearest = self.names.iter().min_by_key(|name| far(name, attribute));
            DataError::UnknownAttribute {
                path: self.path.clone(),
                name: attribute.into(),
                nearest: nearest.cloned().unwrap_or_default(),
                known,
            }
        })
    }

    /// The attributes of an image, in the order of [`Attributes::names`]; `None` for an image
    /// without a row. `image` is its name in a dataset ([`Dataset::name`](crate::Dataset::name)):
    /// the longest row name that is a trailing path of it counts.
    #[must_use]
    pub fn row(&self, image: &str) -> Option<&[Option<bool>]> {
        let image = canonical(image);
        let mut tail = &*image;
        let row = loop {
            if let Some(row) = self.rows.get(tail) {
                break *row;
            }
            tail = tail.split_once('/')?.1;
        };
        let start = row * self.names.len();
        self.values.get(start..start + self.names.len())
    }

    /// Whether an image has an attribute; `None` where that is not known: the value is missing, the
    /// image has no row, or there is no such attribute (see [`Attributes::index`]).
    #[must_use]
    pub fn get(&self, image: &str, attribute: &str) -> Option<bool> {
        let wanted = canonical(attribute);
        let index = self.names.iter().position(|name| *name == wanted)?;
        *self.row(image)?.get(index)?
    }
}

/// The table in the making.
struct Table {
    attributes: Attributes,
    /// The line of each row.
    lines: Vec<usize>,
}

impl Table {
    fn celeba<'a>(
        &mut self,
        mut lines: impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<(), DataError> {
        let count = lines.next().map_or("", |(_, line)| line.trim());
        if let Some((number, line)) = lines.next() {
            self.header(number, line.split_whitespace())?;
        }
        for (number, line) in lines {
            let mut cells = line.split_whitespace();
            let name = cells.next().unwrap_or_default().to_owned();
            self.row(number, name, cells, |value| match value {
                "1" => Ok(Some(true)),
                "-1" => Ok(Some(false)),
                _ => Err("1 or -1"),
            })?;
        }
        let found = self.lines.len();
        if count.parse() == Ok(found) {
            Ok(())
        } else {
            Err(self.refused(format!(
                "its first line promises {} images and {found} follow: the copy is incomplete, \
                 or was edited",
                short(count)
            )))
        }
    }

    fn lfw<'a>(&mut self, lines: impl Iterator<Item = (usize, &'a str)>) -> Result<(), DataError> {
        let mut headed = false;
        for (number, line) in lines {
            if let Some(names) = line.strip_prefix(LFW_HEADER) {
                if headed {
                    return Err(self.wrong(number, "a second header".into()));
                }
                headed = true;
                self.header(number, names.trim_end().split('\t').map(str::trim))?;
                continue;
            }
            if line.starts_with('#') {
                continue;
            }
            if !headed {
                return Err(self.wrong(
                    number,
                    format!("a row before the header, which begins {LFW_HEADER:?}"),
                ));
            }
            let mut cells = line.trim_end().split('\t').map(str::trim);
            let person = cells.next().unwrap_or_default();
            let image = cells.next().unwrap_or_default();
            let Some(image) = image.parse().ok().filter(|n| (1..=9999).contains(n)) else {
                let found = short(image);
                return Err(self.wrong(
                    number,
                    format!("the image's number is {found}: 1 to 9999 is expected behind a tab"),
                ));
            };
            if person.is_empty() || person.contains('/') {
                let found = short(person);
                return Err(self.wrong(number, format!("{found} is no person's name")));
            }
            let person = person.replace(' ', "_");
            let image: u32 = image;
            let name = format!("{person}/{person}_{image:04}.jpg");
            self.row(number, name, cells, |value| {
                let value: f64 = value.parse().map_err(|_| "a number")?;
                match value {
                    _ if !value.is_finite() => Err("a finite number"),
                    0.0 => Ok(None),
                    _ => Ok(Some(value > 0.0)),
                }
            })?;
        }
        if headed {
            Ok(())
        } else {
            Err(self.refused(format!(
                "none of its lines is LFW's header, which begins {LFW_HEADER:?}"
            )))
        }
    }

    fn csv<'a>(
        &mut self,
        mut lines: impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<(), DataError> {
        if let Some((number, line)) = lines.next() {
            self.header(number, line.split(',').skip(1).map(str::trim))?;
        }
        for (number, line) in lines {
            let mut cells = line.split(',').map(str::trim);
            let name = cells.next().unwrap_or_default().to_owned();
            self.row(number, name, cells, |value| match value {
                "1" => Ok(Some(true)),
                "0" => Ok(Some(false)),
                "" => Ok(None),
                _ => Err("1, 0 or nothing"),
            })?;
        }
        Ok(())
    }

    /// Takes the attributes' names.
    fn header<'a>(
        &mut self,
        line: usize,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), DataError> {
        let mut known = HashSet::new();
        for name in names {
            let name = &*canonical(name);
            if name.is_empty() {
                return Err(self.wrong(line, "an attribute without a name".into()));
            }
            if !known.insert(name.to_owned()) {
                return Err(self.wrong(
                    line,
                    format!("the attribute {} is there twice", short(name)),
                ));
            }
            self.attributes.names.push(name.into());
        }
        Ok(())
    }

    /// Takes an image's name and values. `value` reads one, or says what is expected.
    fn row<'a>(
        &mut self,
        line: usize,
        name: String,
        cells: impl Iterator<Item = &'a str> + Clone,
        value: impl Fn(&str) -> Result<Option<bool>, &'static str>,
    ) -> Result<(), DataError> {
        let (have, want) = (cells.clone().count(), self.attributes.names.len());
        if have != want {
            let name = short(&name);
            return Err(self.wrong(
                line,
                format!("{name} has {have} values and the header names {want} attributes"),
            ));
        }
        let written = name;
        let name = canonical(&written).into_owned();
        if written.split('/').any(|part| ["", ".."].contains(&part)) {
            return Err(self.wrong(
                line,
                format!(
                    "{} is no image's name: a relative path, its parts separated by /, is expected",
                    short(&written)
                ),
            ));
        }
        if let Some(&earlier) = self.attributes.rows.get(name.as_str()) {
            let shown = if written.is_ascii() {
                short(&written)
            } else {
                visible(&written)
            };
            let earlier = self.lines[earlier];
            return Err(self.wrong(
                line,
                format!("the image {shown} is there twice, first in line {earlier}"),
            ));
        }
        for (index, cell) in cells.enumerate() {
            let value = value(cell).map_err(|expected| {
                let (attribute, found) = (&self.attributes.names[index], short(cell));
                self.wrong(
                    line,
                    format!("the value of {attribute} is {found}: {expected} is expected"),
                )
            })?;
            self.attributes.values.push(value);
        }
        self.attributes.rows.insert(name.into(), self.lines.len());
        self.lines.push(line);
        Ok(())
    }

    fn finish(self) -> Result<Attributes, DataError> {
        if self.attributes.names.is_empty() {
            return Err(self.refused("it names no attributes".into()));
        }
        if self.lines.is_empty() {
            return Err(self.refused("it names attributes but no image".into()));
        }
        Ok(self.attributes)
    }

    fn wrong(&self, line: usize, reason: String) -> DataError {
        DataError::AttributesLine {
            path: self.attributes.path.clone(),
            line,
            reason,
        }
    }

    fn refused(&self, reason: String) -> DataError {
        DataError::AttributesFile {
            path: self.attributes.path.clone(),
            reason,
        }
    }
}

/// A foreign text in quotes, not at any length.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// How many letters lie between two names, whatever their case and punctuation (Levenshtein's
/// distance of the first [`SHOWN`] letters).
fn far(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> {
        let plain = text.chars().filter(|letter| letter.is_alphanumeric());
        plain.flat_map(char::to_lowercase).take(SHOWN).collect()
    };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = corner + usize::from(letter != other);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

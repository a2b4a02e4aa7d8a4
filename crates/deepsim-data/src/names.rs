//! Names of images, as they are compared.
//!
//! One name is written in many ways: with a byte-order mark before it (the first line of a text file of some editors),
//! with a leading `./` (of `find`), with `\` (of Windows), with letters and accents apart (of macOS: Unicode's NFD) or
//! together (NFC). [`canonical`] takes all that away. It is applied to both sides of every comparison, never to what is
//! opened or stored.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// A name as it is compared: without byte-order marks, `.` components, doubled and leading `./`, a carriage return at
/// its end; `/` for `\`; Unicode in NFC.
#[must_use]
pub fn canonical(name: &str) -> Cow<'_, str> {
    let trimmed = name
        .trim_start_matches('\u{feff}')
        .trim_end_matches(['\r', '\n']);
    let plain_path = !trimmed.contains('\\')
        && trimmed
            .split('/')
            .all(|part| !part.is_empty() && part != ".");
    let path = if plain_path {
        Cow::Borrowed(trimmed)
    } else {
        let absolute = trimmed.starts_with(['/', '\\']);
        let parts = trimmed.split(['/', '\\']);
        let kept: Vec<&str> = parts
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let start = if absolute { "/" } else { "" };
        Cow::Owned(format!("{start}{}", kept.join("/")))
    };
    if is_nfc(&path) {
        path
    } else {
        Cow::Owned(path.nfc().collect())
    }
}

/// A name for a message about names that do not match: everything that is not plain ASCII is escaped, so that two names
/// that look alike are seen to differ.
#[must_use]
pub fn visible(name: &str) -> String {
    if name
        .chars()
        .all(|letter| letter == ' ' || letter.is_ascii_graphic())
    {
        name.to_owned()
    } else {
        format!("\"{}\"", name.escape_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_written_in_many_ways_is_one_name() {
        for name in [
            "caf\u{e9}/1.jpg",
            "cafe\u{301}/1.jpg",
            "\u{feff}caf\u{e9}/1.jpg",
            "./caf\u{e9}/1.jpg",
            "././caf\u{e9}//1.jpg\r",
            "caf\u{e9}\\1.jpg",
            ".\\cafe\u{301}\\.\\1.jpg",
        ] {
            assert_eq!(canonical(name), "caf\u{e9}/1.jpg", "{name:?}");
        }
        assert!(matches!(canonical("a/b.jpg"), Cow::Borrowed("a/b.jpg")));
        for other in ["/a.jpg", "../a.jpg", "A.jpg", " a.jpg", ".a.jpg"] {
            assert_eq!(canonical(other), other);
        }
    }

    #[test]
    fn names_that_look_alike_are_written_so_that_they_differ() {
        assert_eq!(visible("a b/c.jpg"), "a b/c.jpg");
        assert_eq!(visible("caf\u{e9}"), r#""caf\u{e9}""#);
        assert_eq!(visible("cafe\u{301}"), r#""cafe\u{301}""#);
        assert_eq!(visible("\u{feff}a"), r#""\u{feff}a""#);
    }
}

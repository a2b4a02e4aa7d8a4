//! What files and folders are, by a look at them.

use std::fs;
use std::path::Path;

/// Is there nothing in a folder (or no folder)?
pub fn is_free(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut items) => items.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Image files below a folder, by extension; links are not followed.
pub fn count(folder: &Path) -> usize {
    let mut found = 0;
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && is_image(&entry.path()) => found += 1,
                _ => {}
            }
        }
    }
    found
}

/// Is it an image, by its name?
pub fn is_image(path: &Path) -> bool {
    // as deepsim-data takes them
    const KNOWN: &str = "jpg jpeg png webp bmp ppm pgm gif tif tiff jfif jpe jfi jif pjpeg pjp \
                         jpg_large jpg_orig jpeg_large apng dib pnm pbm pam";
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|extension| {
        let mut known = KNOWN.split(' ');
        known.any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// The extension that fits the content.
pub fn image_kind(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, rest @ ..] if rest.starts_with(b"WEBP") => {
            Some("webp")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_counted_below_folders_and_by_extension() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("sub")).unwrap();
        for name in ["a.JPG", "sub/b.webp", "notes.txt", "copyright"] {
            fs::write(tmp.path().join(name), "x").unwrap();
        }
        // A link back to the top must not send the count in circles.
        std::os::unix::fs::symlink(tmp.path(), tmp.path().join("sub/loop")).unwrap();
        assert_eq!(count(tmp.path()), 2);
    }

    #[test]
    fn kinds_are_told_by_content() {
        assert_eq!(image_kind(b"RIFF\0\0\0\0WEBPVP8 "), Some("webp"));
        assert_eq!(image_kind(b"\xff\xd8\xff\xe0"), Some("jpg"));
        assert_eq!(image_kind(b"<svg>"), None);
        assert_eq!(image_kind(b""), None);
    }
}

//! Safe opening and writing of files. Only regular files are opened. A file is written under a temporary name in the
//! same folder and then renamed, so that a link in its place is replaced and never written through.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Prefix of the name of a file while it is written. A killed process may leave such a file behind.
pub const BESIDE: &str = ".partial-file-";

fn flag(flag: OFlags) -> i32 {
    // The bits are those of a C int.
    flag.bits().cast_signed()
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Err(io::Error::other(
        "is a pipe or a device, not a regular file",
    ))
}

/// Opens a file for reading. It never waits for the writer of a pipe, and never opens a device that has
/// no end.
///
/// # Errors
/// What cannot be opened, and what is not a regular file or a link to one.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(flag(OFlags::NONBLOCK));
    match options.open(path) {
        // Another process holds a lease on the regular file, or the disk is slow: wait for it.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock && fs::metadata(path)?.is_file() => {
            regular(File::open(path)?)
        }
        opened => regular(opened?),
    }
}

/// As [`open`], but also opens a pipe that a shell passes as a file: `<(zcat FILE)` is a pipe below /dev or /proc, and
/// a program writes to it.
///
/// # Errors
/// As [`open`], elsewhere.
pub fn open_or_stream(path: &Path) -> io::Result<File> {
    if path.starts_with("/dev") || path.starts_with("/proc") {
        File::open(path)
    } else {
        open(path)
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file of this program for reading and writing at its end, or makes it.
///
/// # Errors
/// What cannot be opened or made, what is not a regular file, and links.
pub fn own(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
        return Err(io::Error::other(
            "is a link, through which nothing is written",
        ));
    }
    let mut options = File::options();
    options
        .read(true)
        .append(true)
        .create(true)
        .custom_flags(flag(OFlags::NONBLOCK | OFlags::NOFOLLOW));
    regular(options.open(path)?)
}

/// Writes a temporary file in the same folder and renames it into place: a reader never sees half
/// of it.
///
/// # Errors
/// Anything that cannot be written; what was there is untouched then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, false)
}

/// As [`replace`], and when it returns the file survives a power loss.
///
/// # Errors
/// As [`replace`].
pub fn replace_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, true)
}

fn write(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // By default only the owner can read a temporary file. The mode of a result follows the umask,
    // as for any other file.
    let mut beside = tempfile::Builder::new()
        .prefix(BESIDE)
        .permissions(PermissionsExt::from_mode(0o666))
        .tempfile_in(parent)
        // Its own message names the temporary file, which the user does not know.
        .map_err(|e| io::Error::from(e.kind()))?;
    beside.write_all(bytes)?;
    if sync {
        beside.as_file().sync_all()?;
    }
    beside.persist(path)?;
    if sync {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pipe = at("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        symlink("/dev/zero", at("link")).unwrap();
        for path in [&pipe, &at("link"), Path::new("/dev/zero"), folder.path()] {
            assert!(read(path).is_err(), "{}", path.display());
            assert!(own(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("theirs"), "theirs").unwrap();
        symlink(at("theirs"), at("link")).unwrap();
        assert!(own(&at("link")).is_err());
        replace(&at("link"), b"ours").unwrap();
        assert_eq!(fs::read(at("theirs")).unwrap(), b"theirs");
        assert_eq!(fs::read(at("link")).unwrap(), b"ours");
        assert!(!at("link").is_symlink());
    }
}

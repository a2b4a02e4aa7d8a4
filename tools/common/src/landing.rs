//! Puts files and folders in place: verified, and in one step (written under a temporary name, then
//! renamed), so that a killed set-up leaves either the old or the new.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::failure::refuse;
use crate::stages::note;

/// SHA-256 of a file, as 64 hex digits.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let n = file
            .read(&mut block)
            .with_context(|| format!("reading {}", path.display()))?;
        if n == 0 {
            break;
        }
        hasher.update(&block[..n]);
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Fails unless the file has this SHA-256; the message names both.
pub fn verify_sha256(path: &Path, expected: &str) -> Result<()> {
    let got = sha256(path)?;
    if got != expected {
        bail!(
            "{} is not the file that was expected (sha256 {got}, expected {expected}): \
             delete it and run the command again; if it happens twice, the source was changed",
            path.display()
        );
    }
    Ok(())
}

/// Writes a whole file: beside, flushed to the disk, renamed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".deepsim-new-")
        // Temporary files are private by default. The mode of a result follows the umask, as for
        // any file.
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("writing in {}", folder.display()))?;
    let written = temporary
        .write_all(bytes)
        .and_then(|()| temporary.as_file().sync_all());
    written.with_context(|| format!("writing {}", path.display()))?;
    temporary
        .persist(path)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// Moves the finished folder `new` to `place`. What stood there is swapped out in one step and
/// then deleted.
pub fn replace_folder(new: &Path, place: &Path) -> Result<()> {
    replace_folder_if(new, place, &|_| true)
}

/// The same, but the old content is deleted only if `ours` accepts it; otherwise it is put back.
///
/// # Errors
/// A refusal where it is not ours; a failed move.
pub fn replace_folder_if(new: &Path, place: &Path, ours: &dyn Fn(&Path) -> bool) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let context = || format!("moving {} to {}", new.display(), place.display());
    let foreign = || {
        refuse(format!(
            "{} holds what set-up did not put there: move it elsewhere, then run this again",
            place.display()
        ))
    };
    if fs::symlink_metadata(place).is_err() {
        fs::rename(new, place).with_context(context)?;
        return remove(new);
    }
    if renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE).is_ok() {
        if !ours(new) {
            renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE).with_context(context)?;
            return Err(foreign());
        }
        return remove(new);
    }
    // A file system without the exchange: two renames, and the old one is kept until both are done.
    if !ours(place) {
        return Err(foreign());
    }
    let old = sibling(place, "old");
    fs::rename(place, &old).with_context(context)?;
    fs::rename(new, place).with_context(context)?;
    remove(new)?;
    remove(&old)
}

/// Deletes a file, a link or a folder with all it holds, and the note that says whose it is.
pub fn remove(path: &Path) -> Result<()> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        let removed = if meta.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.with_context(|| format!("deleting {}", path.display()))?;
    }
    let owner = owner_file(path);
    if is_ours(&owner) {
        fs::remove_file(&owner).with_context(|| format!("deleting {}", owner.display()))?;
    }
    Ok(())
}

/// Prefix of the names of unfinished work.
const HIDDEN: &str = ".deepsim-";
/// Suffix of the marker files beside unfinished work.
const OWNER: &str = ".owner";
/// Content of the marker files.
const OURS: &str = "unfinished work of cargo xtask, deleted by its next set-up\n";

/// A hidden folder beside `place`. A later set-up recognises it as left over by a marker file beside it.
pub fn sibling(place: &Path, what: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let path = place.with_file_name(format!("{HIDDEN}{what}-{name}-{}", std::process::id()));
    // of a killed process of the same number
    let _ = remove(&path);
    // without it nothing is lost but room: the folder then stays after a kill
    if let Some(parent) = path.parent() {
        let _ = fs::create_dir_all(parent);
    }
    let _ = fs::write(owner_file(&path), OURS);
    path
}

fn owner_file(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(OWNER);
    path.with_file_name(name)
}

fn is_ours(owner: &Path) -> bool {
    let is_file = fs::symlink_metadata(owner).is_ok_and(|meta| meta.is_file());
    is_file && fs::read(owner).is_ok_and(|text| text == OURS.as_bytes())
}

/// Deletes what killed set-ups left in `folder`: entries with a marker file beside them. Entries that only have
/// such a name are reported. Call this only while holding the set-up's lock.
pub fn sweep(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(work) = name.strip_suffix(OWNER)
            && name.starts_with(HIDDEN)
            && is_ours(&path)
        {
            remove(&path.with_file_name(work))?;
        } else if [".staging-", ".old-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            note(format_args!(
                "{} may be left over from a set-up by an earlier version: delete it if it is",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Fails when fewer than `megabytes` are free where `folder` is.
pub fn require_space(folder: &Path, megabytes: u64, what: &str) -> Result<()> {
    let Ok(stat) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free < megabytes {
        return Err(refuse(format!(
            "{what} needs {megabytes} MB of free disk space, {} has {free} MB: \
             make room, or put the workspace on a larger disk",
            folder.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_replaces_another_and_leaves_nothing_beside() {
        let tmp = tempfile::tempdir().unwrap();
        let place = tmp.path().join("py");
        for content in ["one", "two"] {
            let new = sibling(&place, "staging");
            fs::create_dir(&new).unwrap();
            fs::write(new.join("f"), content).unwrap();
            replace_folder(&new, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("f")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }

    #[test]
    fn replacing_a_link_keeps_what_it_points_to() {
        let tmp = tempfile::tempdir().unwrap();
        let precious = tmp.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("f"), "mine").unwrap();
        let place = tmp.path().join("py");
        std::os::unix::fs::symlink(&precious, &place).unwrap();
        let new = sibling(&place, "staging");
        fs::create_dir(&new).unwrap();
        replace_folder(&new, &place).unwrap();
        assert_eq!(fs::read_to_string(precious.join("f")).unwrap(), "mine");
        assert!(!place.join("f").exists());
    }

    #[test]
    fn a_wrong_checksum_names_both() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        write(&path, b"abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify_sha256(&path, right).unwrap();
        let message = verify_sha256(&path, &"0".repeat(64))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(right) && message.contains(&"0".repeat(64)),
            "{message}"
        );
    }

    #[test]
    fn only_what_says_that_it_is_ours_is_swept() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        // somebody's folders, some of which are called as ours were or are
        let foreign = [
            ".staging-py-1",
            ".old-py-2",
            ".new-x",
            ".deepsim-staging-mine-3",
            ".deepsim-staging-theirs-4",
            "py",
            ".hidden",
        ];
        for name in foreign {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("f"), "mine").unwrap();
        }
        fs::write(at(".deepsim-staging-theirs-4.owner"), "me").unwrap();
        let left = sibling(&at("py"), "staging");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "ours").unwrap();
        let gone = sibling(&at("gone"), "old");
        sweep(tmp.path()).unwrap();
        assert!(!left.exists() && !gone.exists());
        for name in foreign {
            assert_eq!(fs::read_to_string(at(name).join("f")).unwrap(), "mine");
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), foreign.len() + 1);
    }

    #[test]
    fn what_is_not_ours_is_put_back_instead_of_replaced() {
        let tmp = tempfile::tempdir().unwrap();
        let place = tmp.path().join("photos");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("negatives.zip"), "mine").unwrap();
        let new = sibling(&place, "staging");
        fs::create_dir(&new).unwrap();
        fs::write(new.join("a.webp"), "ours").unwrap();
        let empty = |old: &Path| fs::read_dir(old).is_ok_and(|mut items| items.next().is_none());
        let error = replace_folder_if(&new, &place, &empty).unwrap_err();
        assert!(error.to_string().contains("did not put there"), "{error}");
        let kept = fs::read_to_string(place.join("negatives.zip")).unwrap();
        assert_eq!((kept.as_str(), new.join("a.webp").exists()), ("mine", true));
        fs::remove_file(place.join("negatives.zip")).unwrap();
        replace_folder_if(&new, &place, &empty).unwrap();
        assert!(place.join("a.webp").exists());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }
}

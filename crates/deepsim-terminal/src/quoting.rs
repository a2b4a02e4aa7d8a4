//! Commands that a person can copy into a shell.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::is_obeyed;

/// A word as a shell reads it back: unchanged where nothing in it is special, else quoted. Bytes that a terminal would
/// obey, or that are no UTF-8, are spelled out (`$'…'`, which sh of POSIX 2024, bash, zsh and ksh read).
pub fn quote(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    let plain = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(is_obeyed));
    // `--set a.b=c`: an equals sign is an ordinary character but at the beginning of a word.
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if let Some(text) = plain.filter(|text| !text.is_empty() && !text.starts_with('='))
        && text.chars().all(ordinary)
    {
        return text.to_owned();
    }
    if let Some(quoted) = plain.and_then(|text| shlex::try_quote(text).ok()) {
        return quoted.into_owned();
    }
    let mut quoted = String::from("$'");
    let mut rest = bytes;
    while !rest.is_empty() {
        // What is UTF-8 of the rest, then the byte behind it that is not.
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&rest[..e.valid_up_to()]).unwrap_or_default(),
        };
        for c in valid.chars() {
            match c {
                '\'' | '\\' => quoted.extend(['\\', c]),
                c if is_obeyed(c) => c
                    .encode_utf8(&mut [0; 4])
                    .bytes()
                    .for_each(|b| octal(&mut quoted, b)),
                c => quoted.push(c),
            }
        }
        rest = &rest[valid.len()..];
        if let Some((byte, behind)) = rest.split_first() {
            octal(&mut quoted, *byte);
            rest = behind;
        }
    }
    quoted.push('\'');
    quoted
}

/// Three octal digits end by themselves: hexadecimal ones would take letters behind them along.
fn octal(to: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(to, "\\{byte:03o}");
}

/// Words as one line for a shell.
pub fn command<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    let quoted: Vec<String> = words.into_iter().map(quote).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_word_comes_back_from_a_shell_as_it_was() {
        let words: Vec<Vec<u8>> = vec![
            b"plain/path-1.toml".to_vec(),
            b"".to_vec(),
            b"x.toml; touch owned #".to_vec(),
            b"it's $HOME `id` \"q\" \\ *?[a] ~ !x & | < > ( )".to_vec(),
            "Größe\u{202e}gpj".as_bytes().to_vec(),
            b"line\nend\x1b[31m\ttab'quote\\7".to_vec(),
            b"no utf-8: \xff\xfe7 and on".to_vec(),
            b"--set=a=b c".to_vec(),
            b"=x".to_vec(),
        ];
        let line = command(words.iter().map(|w| OsStr::from_bytes(w)));
        assert!(!line.contains(is_obeyed), "{line}");
        let script = format!("printf '%s\\0' {line}");
        let said = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(said.status.success(), "{script}");
        let back: Vec<Vec<u8>> = said.stdout.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        assert_eq!(back[..words.len()], words, "{script}");
        assert_eq!(quote("plain/path-1.toml"), "plain/path-1.toml");
    }
}

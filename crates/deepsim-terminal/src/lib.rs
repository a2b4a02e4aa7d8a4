//! What a program says to people.
//!
//! * Text from files (names, keys, paths, messages of other libraries) may hold characters that a terminal obeys:
//!   [`escape`] is the one place where they become visible. [`tell`] and [`print()`] go through it, and [`parse`] for what
//!   clap says about arguments.
//! * The reader may be gone (a closed terminal, a log on a full disk, `| head`). This does not end the program.
//! * Commands to copy are built of words, each quoted for the shell: [`command`].

#[cfg(feature = "log")]
pub mod log;
mod quoting;
mod signals;

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

pub use quoting::{command, quote};
pub use signals::{end_as_first_process, fail_at_the_file_limit};

/// A line (or several) on stderr, escaped, if anybody is there to read it.
pub fn tell(line: impl Display) {
    let line = line.to_string();
    let _ = writeln!(io::stderr(), "{}", escape(&line));
}

/// Text on stdout, escaped. A closed pipe is not an error.
///
/// # Errors
/// A stdout that takes no more: a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let text = text.to_string();
    put(escape(&text).as_bytes())
}

/// Results for programs (CSV, JSON) on stdout: as they are, but escaped where stdout is a terminal.
///
/// # Errors
/// As for [`print()`].
pub fn print_data(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() {
        put(escape(text).as_bytes())
    } else {
        put(text.as_bytes())
    }
}

fn put(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether a terminal does something at this character instead of showing it: controls (C0, DEL, C1), line and
/// paragraph separators, and what changes the direction of the text around it.
pub fn is_obeyed(c: char) -> bool {
    matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of several lines with every other character that a terminal obeys written as in Rust: `\u{1b}`. Lines end and
/// tabs stay.
pub fn escape(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && !matches!(c, '\n' | '\t'))
}

/// Text that belongs on one line, such as a name: as [`escape`], and line ends and tabs are written out as well.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// A path on one line.
pub fn path(path: impl AsRef<Path>) -> String {
    one_line(&path.as_ref().to_string_lossy()).into_owned()
}

fn escaped(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if wanted(c) {
            // Writing to a string does not fail.
            _ = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// JSON with every character that a terminal obeys written as `\u001b`: the same data. Such characters can only be within
/// texts, but for line ends and tabs, which stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let wanted = |c: char| is_obeyed(c) && !matches!(c, '\n' | '\r' | '\t');
    if !text.contains(wanted) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if wanted(c) {
            // Writing to a string does not fail. All of them are below U+10000.
            _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// stderr for libraries that write whole lines: what they write is escaped, and nothing fails where nobody reads.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let _ = io::stderr().write_all(escape(&text).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The program's arguments. Ends the program where they are wrong (exit code 2) or ask for help (0), as clap does, but with
/// what was typed escaped: names that a shell filled in come from files.
pub fn parse<T: clap::Parser>() -> T {
    let error = match T::try_parse() {
        Ok(arguments) => return arguments,
        Err(error) => error,
    };
    let typed = std::env::args_os().skip(1);
    if !typed
        .into_iter()
        .any(|word| word.to_string_lossy().contains(is_obeyed))
    {
        end(error.print(), error.exit_code());
    }
    // Make the same error from escaped arguments: in the original ones clap drops colour sequences and keeps line
    // breaks.
    let escaped = std::env::args_os().map(|word| one_line(&word.to_string_lossy()).into_owned());
    let error = T::try_parse_from(escaped).err().unwrap_or(error);
    let text = error.render().to_string();
    let said = if error.use_stderr() {
        tell(text.trim_end());
        Ok(())
    } else {
        print(text)
    };
    end(said, error.exit_code())
}

/// A full disk makes printing the help fail; a closed pipe does not.
fn end(said: io::Result<()>, code: i32) -> ! {
    match said {
        Err(e) if code == 0 && e.kind() != ErrorKind::BrokenPipe => {
            tell(format_args!("error: stdout: {e}"));
            std::process::exit(1)
        }
        _ => std::process::exit(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out_and_everything_else_stays() {
        let cases = [
            (
                "Größe 42 µm, 日本語, e\u{301}, 🙂",
                "Größe 42 µm, 日本語, e\u{301}, 🙂",
            ),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\x08\x7f", "a\\rb\\u{8}\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            (
                "a\u{202e}gpj.exe\u{2066}\u{2069}",
                "a\\u{202e}gpj.exe\\u{2066}\\u{2069}",
            ),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ];
        for (text, plain) in cases {
            assert_eq!(escape(text), plain);
        }
        assert_eq!(
            json("{\n\"a\": \"\u{202e}\u{7f}\u{9b}é\"}"),
            "{\n\"a\": \"\\u202e\\u007f\\u009bé\"}"
        );
        assert_eq!(one_line("a\nb\tc\u{2028}d"), "a\\nb\\tc\\u{2028}d");
        assert_eq!(path(Path::new("a\nb/c d")), "a\\nb/c d");
        for c in '\0'..=char::MAX {
            let text = escape(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(!text.chars().any(|c| is_obeyed(c) && c != '\n' && c != '\t'));
        }
    }
}

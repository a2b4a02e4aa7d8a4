//! What a program says to people. The reader may be gone (a closed terminal, a log on a full disk, `| head`): that
//! is no reason to end what was going well.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// A line on stderr, if anybody is there to read it.
pub fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Results on stdout, as they are. A reader who has seen enough is no failure.
///
/// # Errors
/// A stdout that takes no more: a full disk.
pub fn print(results: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{results}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

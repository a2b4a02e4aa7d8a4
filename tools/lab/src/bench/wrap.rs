//! Sentences below a table, 80 columns at most.

/// The sentence in lines; all but the first are indented.
pub fn wrapped(note: &str) -> String {
    let mut lines = vec![String::new()];
    for word in note.split(' ') {
        let full = lines.last().is_some_and(|l| l.len() + 1 + word.len() > 78);
        if full {
            lines.push("  ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_wrapped() {
        let text = wrapped(&"word ".repeat(60));
        assert!(
            text.lines().count() > 3 && text.lines().all(|l| l.len() <= 80),
            "{text}"
        );
    }
}

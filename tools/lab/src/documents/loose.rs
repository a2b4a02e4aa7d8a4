//! Numbers of measurements that stand in a document outside of marks: nobody can say which record they are.

/// What follows a number that was measured. Settings (pixels, steps, images) have no such unit.
const UNITS: [&str; 20] = [
    "%", "×", "x", "times", "ms", "s", "min", "minutes", "seconds", "hours", "m", "MB", "GB",
    "MiB", "GiB", "kB", "GFLOP/s", "TFLOP/s", "images/s", "dB",
];

/// Lines and numbers: decimal fractions, and numbers with a unit. Text within marks, code and addresses do not count.
pub fn numbers(text: &str) -> Vec<(usize, String)> {
    let plain = blanked(text);
    let mut all = Vec::new();
    for (at, line) in plain.lines().enumerate() {
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let joined = rest[..start].chars().next_back().is_some_and(in_a_word);
            let number = &rest[start..];
            let digits = |c: char| c.is_ascii_digit() || c == ',' || c == '.';
            let end = number.find(|c| !digits(c)).unwrap_or(number.len());
            let value = number[..end].trim_end_matches([',', '.']);
            let behind = &number[end..];
            let word = unit(behind);
            let fraction = value.contains('.');
            let measured = fraction || (UNITS.contains(&word) && end == value.len());
            if measured && !joined {
                let space = if behind.starts_with(' ') { " " } else { "" };
                let found = if UNITS.contains(&word) {
                    format!("{value}{space}{word}")
                } else {
                    value.to_owned()
                };
                all.push((at + 1, found));
            }
            rest = behind;
            // `VGG16`, `4s` and so on are read to their end.
            let tail = rest
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(rest.len());
            rest = &rest[tail..];
        }
    }
    all
}

/// A digit behind it belongs to a name: `VGG16`, `bf16`, `CC-BY-4.0`, `0.5.15`.
fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || "-_/.§×".contains(c)
}

/// The word behind a number, with at most one space between.
fn unit(behind: &str) -> &str {
    let behind = behind.strip_prefix(' ').unwrap_or(behind);
    let end = behind.find(|c: char| !(c.is_alphanumeric() || "%×/".contains(c)));
    let word = &behind[..end.unwrap_or(behind.len())];
    match word.split_once(|c: char| c.is_ascii_digit()) {
        // A size: `3×3`.
        Some(("×" | "x", _)) => "",
        // `7m23s` has its unit in the middle.
        Some((unit, _)) => unit,
        None => word,
    }
}

/// The text with everything blanked that is no sentence: marks and what stands within them, code, addresses.
fn blanked(text: &str) -> String {
    let mut out: Vec<u8> = text.as_bytes().to_vec();
    let mut blank = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            // Byte by byte: what is blanked is blanked whole, so that the text stays valid.
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let pairs = [
            ("<!-- begin generated: ", "<!-- end generated -->"),
            ("<!--= ", "<!--/-->"),
            ("<!--", "-->"),
            ("```", "```"),
            ("`", "`"),
            ("](", ")"),
            ("<http", ">"),
        ];
        let open = pairs.iter().find(|(open, _)| rest.starts_with(open));
        let end = open.and_then(|(open, close)| {
            let end = rest[open.len()..].find(close)?;
            Some(open.len() + end + close.len())
        });
        match end {
            Some(end) => {
                blank(at, at + end);
                at += end;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_numbers_in_sentences_are_found() {
        for (text, found) in [
            ("an error of 39.4", "39.4"),
            ("12 % of them", "12 %"),
            ("it took 7m23s", "7m"),
            ("a step takes 14 ms in all", "14 ms"),
            ("1.4 times as fast", "1.4 times"),
            ("2.1×", "2.1×"),
            ("peak 2,670 MiB", "2,670 MiB"),
            ("first\nthen 18 s.", "18 s"),
            ("1.76 → x", "1.76"),
        ] {
            let all = numbers(text);
            assert_eq!(all.len(), 1, "{text}: {all:?}");
            assert_eq!(all[0].1, found, "{text}");
        }
        assert_eq!(numbers("a\nb 5 %")[0].0, 2);
    }

    #[test]
    fn names_settings_code_and_marks_are_no_measurements() {
        for text in [
            "VGG16 in bf16 at 227 pixels, batch 8, 3,000 steps",
            "`--set loss.adv=0.5` and `2.13`",
            "```\n1.5 s\n```",
            "<!--= quickstart image_error -->39.4<!--/--> %",
            "<!-- begin generated: runs -->\n| 1.5 |\n<!-- end generated -->",
            "[a](b-1.5.md), CC-BY-4.0, zune-jpeg-0.5.15",
            "216 photos, 2 cores",
            "kernels of 3×3 and 5x5 (§4.2)",
        ] {
            assert_eq!(numbers(text), [], "{text}");
        }
    }
}

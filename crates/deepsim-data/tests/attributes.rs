//! Files of attributes: three formats, rows found by trailing paths, every lie named by its line.
// clippy.toml allows these in #[test] functions but not in the helpers beside them
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use deepsim_data::{Attributes, DataError};
use proptest::prelude::*;
use tempfile::tempdir;

const CELEBA: &str = "\
2
5_o_Clock_Shadow Arched_Eyebrows Eyeglasses Smiling \r
000001.jpg -1  1 -1  1\r
000002.jpg -1 -1  1 -1
";

const LFW: &str = "\
# lfw_attributes.txt: values of attributes, http://example.org
#\tperson\timagenum\tMale\tMouth Slightly Open\tEyeglasses
Aaron Eckhart\t1\t1.56834639173\t-0.86\t-1.2e-3
# a comment in between
Aaron Guiel\t1\t0.169850615079\t0.41\t0.0
José Luis de la Cruz\t12\t-1\t+2\t3
";

const OWN: &str = "\
name,glasses,smiling

s1/1.pgm,0,1
s1/2.pgm, 1 ,
1.pgm,1,1
";

fn parse(text: impl AsRef<[u8]>) -> Result<Attributes, DataError> {
    Attributes::parse(text.as_ref(), Path::new("folder/list.txt"))
}

fn refused(text: impl AsRef<[u8]>) -> String {
    let message = parse(text).unwrap_err().to_string();
    assert!(message.starts_with("folder/list.txt"), "{message}");
    message
}

#[test]
fn celebas_list_is_read() {
    let list = parse(CELEBA).unwrap();
    assert_eq!(
        list.names(),
        [
            "5_o_Clock_Shadow",
            "Arched_Eyebrows",
            "Eyeglasses",
            "Smiling"
        ]
    );
    assert_eq!(list.len(), 2);
    let get = |image, attribute| list.get(image, attribute);
    assert_eq!(get("000001.jpg", "Smiling"), Some(true));
    assert_eq!(get("img_align_celeba/000002.jpg", "Smiling"), Some(false));
    assert_eq!(
        get("a/b/img_align_celeba/000002.jpg", "Eyeglasses"),
        Some(true)
    );
    // another image, only part of a component, another attribute
    assert_eq!(get("000003.jpg", "Smiling"), None);
    assert_eq!(get("x000001.jpg", "Smiling"), None);
    assert_eq!(get("000001.jpg", "smiling"), None);
}

#[test]
fn lfws_list_is_read() {
    let list = parse(LFW).unwrap();
    assert_eq!(list.names(), ["Male", "Mouth Slightly Open", "Eyeglasses"]);
    let row = |image| list.row(image).map(<[_]>::to_vec);
    assert_eq!(
        row("lfw-deepfunneled/Aaron_Eckhart/Aaron_Eckhart_0001.jpg"),
        Some(vec![Some(true), Some(false), Some(false)])
    );
    // a classifier that says exactly 0 says nothing
    assert_eq!(
        row("Aaron_Guiel/Aaron_Guiel_0001.jpg"),
        Some(vec![Some(true), Some(true), None])
    );
    assert_eq!(
        row("José_Luis_de_la_Cruz/José_Luis_de_la_Cruz_0012.jpg"),
        Some(vec![Some(false), Some(true), Some(true)])
    );
    assert_eq!(row("Aaron_Guiel_0001.jpg"), None);
}

#[test]
fn our_own_csv_is_read() {
    for text in [
        OWN.to_owned(),
        OWN.replace('\n', "\r\n"),
        format!("\u{feff}{OWN}"),
        OWN.trim_end().to_owned(),
    ] {
        let list = parse(text).unwrap();
        assert_eq!(list.names(), ["glasses", "smiling"]);
        assert_eq!(list.len(), 3);
        assert_eq!(list.row("s1/1.pgm").unwrap(), [Some(false), Some(true)]);
        assert_eq!(list.row("s1/2.pgm").unwrap(), [Some(true), None]);
        assert_eq!(list.get("s1/2.pgm", "smiling"), None);
    }
}

#[test]
fn the_longest_trailing_path_counts_in_any_order_of_rows() {
    let mut rows: Vec<&str> = OWN.lines().skip(2).collect();
    for _ in 0..rows.len() {
        rows.rotate_left(1);
        let list = parse(format!("name,glasses,smiling\n{}\n", rows.join("\n"))).unwrap();
        let glasses = |image| list.get(image, "glasses");
        assert_eq!(glasses("train/s1/1.pgm"), Some(false));
        // whole components only: these end with 1.pgm, not with s1/1.pgm
        assert_eq!(glasses("train/is1/1.pgm"), Some(true));
        assert_eq!(glasses("s2/1.pgm"), Some(true));
        assert_eq!(glasses("s2/11.pgm"), None);
        assert_eq!(glasses(""), None);
        assert_eq!(glasses("s1/"), None);
    }
}

#[test]
fn an_attribute_that_is_not_there_is_answered_with_those_that_are() {
    let list = parse(CELEBA).unwrap();
    assert_eq!(list.index("Eyeglasses").unwrap(), 2);
    for (asked, nearest) in [
        ("glasses", "Eyeglasses"),
        ("smiling", "Smiling"),
        ("smile", "Smiling"),
        ("5 o'clock shadow", "5_o_Clock_Shadow"),
    ] {
        let message = list.index(asked).unwrap_err().to_string();
        assert!(message.contains("folder/list.txt has no"), "{message}");
        assert!(
            message.contains(&format!("nearest is {nearest:?}")),
            "{message}"
        );
        assert!(
            message.contains("Arched_Eyebrows, Eyeglasses, Smiling"),
            "{message}"
        );
    }
    let many: Vec<String> = (0..150).map(|index| format!("a{index}")).collect();
    let list = parse(format!(
        "name,{}\nx.png{}\n",
        many.join(","),
        ",1".repeat(150)
    ))
    .unwrap();
    let message = list.index("a149b").unwrap_err().to_string();
    assert!(
        message.contains("\"a149\"") && message.contains("and 50 more"),
        "{message}"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let lies = [
        // (text, line, what)
        (
            "1\nA B\n1.jpg 1\n",
            3,
            "\"1.jpg\" has 1 values and the header names 2",
        ),
        (
            "1\nA B\n1.jpg 1 1 1\n",
            3,
            "has 3 values and the header names 2",
        ),
        (
            "1\nA B\n1.jpg 1 0\n",
            3,
            "the value of B is \"0\": 1 or -1 is expected",
        ),
        ("1\nA B\n1.jpg 1 yes\n", 3, "\"yes\""),
        (
            "1\nA A\n1.jpg 1 1\n",
            2,
            "the attribute \"A\" is there twice",
        ),
        (
            "2\nA\n1.jpg 1\n\n1.jpg -1\n",
            5,
            "\"1.jpg\" is there twice, first in line 3",
        ),
        ("1\nA\n/1.jpg 1\n", 3, "no image's name"),
        ("1\nA\n../1.jpg 1\n", 3, "no image's name"),
        (
            "name,a,b\nx.png,1\n",
            2,
            "has 1 values and the header names 2",
        ),
        ("name,a,b\nx.png,1,0,\n", 2, "has 3 values"),
        (
            "name,a,b\nx.png,1,-1\n",
            2,
            "the value of b is \"-1\": 1, 0 or nothing",
        ),
        ("name,a,b\nx.png,1,\"0\"\n", 2, "1, 0 or nothing"),
        ("name,a,,b\n", 1, "an attribute without a name"),
        ("name,a,a\n", 1, "twice"),
        ("name,a\nx.png,1\nx.png,1\n", 3, "first in line 2"),
        ("name,a\n,1\n", 2, "no image's name"),
        ("name,a\ns1//1.pgm,1\n", 2, "no image's name"),
        (
            "#\tperson\timagenum\tMale\nA B\t1\n",
            2,
            "has 0 values and the header names 1",
        ),
        (
            "#\tperson\timagenum\tMale\nA B\t1\t1.0\t2.0\n",
            2,
            "has 2 values",
        ),
        (
            "#\tperson\timagenum\tMale\nA B\t1\tmuch\n",
            2,
            "the value of Male is \"much\": a number",
        ),
        (
            "#\tperson\timagenum\tMale\nA B\t1\tNaN\n",
            2,
            "a finite number",
        ),
        (
            "#\tperson\timagenum\tMale\nA B\tone\t1\n",
            2,
            "the image's number is \"one\"",
        ),
        ("#\tperson\timagenum\tMale\nA B 1 1\n", 2, "behind a tab"),
        ("#\tperson\timagenum\tMale\nA B\t0\t1\n", 2, "1 to 9999"),
        (
            "#\tperson\timagenum\tMale\nA/B\t1\t1\n",
            2,
            "no person's name",
        ),
        (
            "#\tperson\timagenum\tMale\nA B\t1\t1\nA B\t01\t1\n",
            3,
            "A_B/A_B_0001.jpg\" is there twice",
        ),
        ("# note\nA B\t1\t1\n", 2, "a row before the header"),
        (
            "#\tperson\timagenum\tA\n#\tperson\timagenum\tA\n",
            2,
            "a second header",
        ),
    ];
    for (text, line, what) in lies {
        let message = refused(text);
        assert!(
            message.contains(&format!(", line {line}: ")),
            "{text:?}: {message}"
        );
        assert!(message.contains(what), "{text:?}: {message}");
    }
    let message = refused(b"name,a\nx.png,1\nfa\xe7ade.png,1\n");
    assert!(message.contains("line 3: it is not UTF-8"), "{message}");
    // a binary file is no reason for a long message
    let message = refused(format!("name,a\nx.png,{}\n", "9".repeat(10_000)));
    assert!(message.len() < 300, "{message}");
}

#[test]
fn what_is_wrong_with_a_whole_file_is_said() {
    for (text, what) in [
        ("", "it is empty"),
        (" \n\r\n\t\n", "it is empty"),
        (
            "image_id,Smiling\n1.jpg,1\n",
            "it begins with \"image_id,Smiling\"",
        ),
        ("0\n", "names no attributes"),
        ("0\nSmiling\n", "no image"),
        (
            "3\nSmiling\n1.jpg 1\n2.jpg 1\n",
            "promises \"3\" images and 2 follow",
        ),
        (
            "1\nSmiling\n1.jpg 1\n2.jpg 1\n",
            "promises \"1\" images and 2 follow",
        ),
        (
            "99999999999999999999999\nA\n1.jpg 1\n",
            "images and 1 follow",
        ),
        ("name\n", "names no attributes"),
        ("name,a\n", "no image"),
        ("# only a comment\n", "none of its lines is LFW's header"),
        ("#\tperson\timagenum\tMale\n", "no image"),
    ] {
        let message = refused(text);
        assert!(message.contains(what), "{text:?}: {message}");
    }
}

#[test]
fn files_are_read_and_what_is_no_file_is_refused() {
    let root = tempdir().unwrap();
    let file = root.path().join("list_attr_celeba.txt");
    fs::write(&file, CELEBA).unwrap();
    let list = Attributes::read(&file).unwrap();
    assert_eq!((list.len(), list.path()), (2, file.as_path()));
    assert!(!list.is_empty());
    let message = |path: &Path| Attributes::read(path).unwrap_err().to_string();
    assert!(message(&root.path().join("none")).contains("does not exist"));
    assert!(message(root.path()).contains("no regular file"));
    assert!(message(Path::new("/dev/zero")).contains("no regular file"));
    // sparse: nothing of it is read
    fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    assert!(message(&file).contains("at most 134217728 are read"));
}

/// As large as CelebA's: 202,599 rows of 40 values. The bound is generous, for slow machines and
/// unoptimised builds; it is there to catch work that grows faster than the file.
#[test]
fn a_list_of_celebas_size_is_read_quickly() {
    const ROWS: usize = 202_599;
    let mut text = format!("{ROWS}\n");
    for index in 0..40 {
        write!(text, "Attribute_{index} ").unwrap();
    }
    text.push('\n');
    for row in 1..=ROWS {
        write!(text, "{row:06}.jpg").unwrap();
        for index in 0..40 {
            text.push_str(if row % (index + 2) == 0 { "  1" } else { " -1" });
        }
        text.push('\n');
    }
    let start = std::time::Instant::now();
    let list = parse(&text).unwrap();
    let read = start.elapsed();
    let start = std::time::Instant::now();
    let index = list.index("Attribute_8").unwrap();
    let tenths = (1..=ROWS)
        .filter(|row| {
            let name = format!("img_align_celeba/{row:06}.jpg");
            list.row(&name).unwrap()[index] == Some(true)
        })
        .count();
    println!("read in {read:?}, looked up in {:?}", start.elapsed());
    assert_eq!(tenths, ROWS / 10);
    assert!(read.as_secs() < 10, "{read:?}");
}

/// Text near enough to the formats that the tables' insides are reached.
fn tables() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "name",
        "a",
        "b",
        "1",
        "-1",
        "0",
        "2",
        "",
        " ",
        "1.jpg",
        "s1/1.pgm",
        "/",
        "NaN",
        "#",
        "é",
        "#\tperson\timagenum\t",
        "A B",
        "1e999",
    ]);
    let gap = prop::sample::select(vec![",", " ", "\t", "\n", "\r\n", "\n1.jpg", "\r"]);
    prop::collection::vec((word, gap), 0..40).prop_map(|parts| {
        let mut text = String::new();
        for (word, gap) in parts {
            text.push_str(word);
            text.push_str(gap);
        }
        text
    })
}

fn never_panics(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse(bytes) {
        Ok(list) => {
            prop_assert!(!list.names().is_empty() && !list.is_empty());
            prop_assert!(list.index(&list.names()[0]).is_ok());
            prop_assert!(
                list.row("a/s1/1.pgm")
                    .is_none_or(|row| row.len() == list.names().len())
            );
            // neither of which may panic either
            let _ = list.index("glasses").map_err(|error| error.to_string());
            let _ = list.get("é//", "a");
        }
        Err(error) => prop_assert!(error.to_string().contains("folder/list.txt")),
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        never_panics(&bytes)?;
    }

    #[test]
    fn any_text_is_a_table_or_an_error(text in ".{0,200}") {
        never_panics(text.as_bytes())?;
    }

    #[test]
    fn what_looks_like_a_table_is_one_or_an_error(text in tables()) {
        never_panics(text.as_bytes())?;
        never_panics(format!("1\na b\n{text}").as_bytes())?;
        never_panics(format!("name,a,b\n{text}").as_bytes())?;
        never_panics(format!("#\tperson\timagenum\ta\tb\n{text}").as_bytes())?;
    }
}

#[test]
fn names_match_whatever_the_editor_and_the_file_system_made_of_them() {
    for text in [
        "\u{feff}name,gl\u{fc}cklich\r\n./caf\u{e9}/1.jpg,1\r\n",
        "name,glu\u{308}cklich\ncafe\u{301}/1.jpg,1\n",
        "name,gl\u{fc}cklich\ncaf\u{e9}\\1.jpg,1\n",
    ] {
        let table = Attributes::parse(text.as_bytes(), Path::new("a.csv")).unwrap();
        for image in [
            "caf\u{e9}/1.jpg",
            "train/cafe\u{301}/1.jpg",
            "./caf\u{e9}/1.jpg",
        ] {
            for attribute in ["gl\u{fc}cklich", "glu\u{308}cklich"] {
                assert_eq!(
                    table.get(image, attribute),
                    Some(true),
                    "{text:?} {image:?}"
                );
                assert_eq!(table.index(attribute).unwrap(), 0);
            }
        }
        assert_eq!(table.get("cafe/1.jpg", "gl\u{fc}cklich"), None);
    }
    // two rows that are one name: said so that the difference is seen
    let twice = "name,a\ncaf\u{e9}.jpg,1\ncafe\u{301}.jpg,0\n";
    let error = Attributes::parse(twice.as_bytes(), Path::new("a.csv")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains(r#""cafe\u{301}.jpg" is there twice, first in line 2"#),
        "{error}"
    );
}

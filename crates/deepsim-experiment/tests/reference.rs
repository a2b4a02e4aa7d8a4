//! `docs/configuration.md` is made from the doc comments of the option structs. To renew it:
//! `DEEPSIM_WRITE_DOCS=1 cargo test -p deepsim-experiment --test reference`.

// The leave that clippy.toml gives tests ends at their helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

const SOURCE: &str = include_str!("../src/raw.rs");
const NETWORKS: &str = include_str!("../src/source.rs");
/// Struct → table in the file; in the order of the page.
const TABLES: [(&str, &str); 15] = [
    ("Raw", ""),
    ("RawData", "[data]"),
    ("RawNet", "[encoder] and [comparator]"),
    ("LatentSpec", "[latent]"),
    ("RawGenerator", "[generator]"),
    ("RawDiscriminator", "[discriminator]"),
    ("RawVaeGan", "[vaegan]"),
    ("RawDiversity", "[diversity]"),
    ("RawLoss", "[loss]"),
    ("RawPixels", "[pixels]"),
    ("RawOptimizer", "[optimizer]"),
    (
        "AdamOptions",
        "[optimizer.generator], [optimizer.discriminator] and [optimizer.encoder]",
    ),
    ("RawSchedule", "[schedule]"),
    ("RawGate", "[gate]"),
    ("RawTrain", "[train]"),
];

/// (key, type, whether it may be left out, description) of each field of a struct.
fn fields(source: &str, name: &str) -> Vec<(String, String, bool, String)> {
    let start = source
        .find(&format!("pub struct {name} {{"))
        .expect("the struct is there");
    let body = &source[start..start + source[start..].find("\n}").expect("it ends")];
    let (mut out, mut doc, mut optional) = (Vec::new(), String::new(), false);
    for line in body.lines().skip(1).map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(text.trim());
        } else if line.starts_with("#[serde(default") {
            optional = true;
        } else if let Some((key, kind)) = line.strip_prefix("pub ").and_then(|l| l.split_once(": "))
        {
            out.push((
                key.to_owned(),
                kind.trim_end_matches(',').to_owned(),
                optional,
                std::mem::take(&mut doc),
            ));
            optional = false;
        }
    }
    out
}

fn type_name(rust: &str) -> &str {
    match rust {
        "String" => "string",
        "PathBuf" => "path",
        "bool" => "true or false",
        "f64" | "Option<f64>" => "number",
        "Rule" => "\"adam\" or \"rmsprop\"",
        "RawArchitecture" => "\"deepsim\" or \"larsen\"",
        "Trunk" => "\"deepsim\", \"larsen\" or a table",
        "u32" | "u64" | "usize" => "whole number",
        "Vec<u64>" => "list of whole numbers",
        "i64" | "Option<u32>" => "whole number",
        "Code" => "\"gaussian\" or \"plain\"",
        "PixelDistance" => "\"squared\", \"absolute\", \"ssim\" or \"ms-ssim\"",
        "Option<[f32; 2]>" => "[low, high]",
        "RawPrecision" => "\"fp32\" or \"bf16\"",
        "RawTf32" => "\"off\" or \"on\"",
        "RawNotFinite" => "\"stop\" or \"halve\"",
        "RawPasses" => "\"paper\" or \"one\"",
        "Reduction" => "\"caffe\", \"paper\" or \"mean\"",
        "RawKind" => {
            "\"caffenet\", \"videonet\", \"alexnet\", \"vgg16\", \"efficientnet-lite0\", \"torchscript\", \"recorded\", \"downsampled\", \"larsen\" or \"discriminator\""
        }
        "Option<RawTap>" => "layer name",
        "Option<String>" => "string",
        "Option<PathBuf>" => "path",
        "Option<Vec<i64>>" => "[length] or [channels, size, size]",
        "Option<Normalize>" => "\"none\", \"rms\" or \"zscore\"",
        "Option<Units>" => "\"rgb-0-255\", \"rgb-0-1\", \"rgb-imagenet\" or \"bgr-caffe\"",
        "Option<bool>" => "true or false",
        _ => "table",
    }
}

fn page() -> String {
    let of_nets = |file: &str| {
        let nets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deepsim-nets/src");
        std::fs::read_to_string(nets.join(file)).expect("a source of deepsim-nets")
    };
    let (adam, latent) = (of_nets("optim.rs"), of_nets("learned.rs"));
    let mut page = String::from(
        "# Experiment files\n\nEvery key of an experiment file, made from the doc comments of \
         `crates/deepsim-experiment/src/raw.rs`. All keys must be written out but for those marked optional. \
         `--set KEY=VALUE` overrides one from the command line, such as `--set train.steps=100`.\n",
    );
    for (name, table) in TABLES {
        let source = match name {
            "AdamOptions" => adam.as_str(),
            "LatentSpec" => latent.as_str(),
            "RawNet" => NETWORKS,
            _ => SOURCE,
        };
        let title = if table.is_empty() {
            "Top level".to_owned()
        } else {
            format!("`{table}`")
        };
        writeln!(page, "\n## {title}\n\n| key | value | |\n|---|---|---|").unwrap();
        for (key, kind, optional, doc) in fields(source, name) {
            let optional = if optional { " (optional)" } else { "" };
            writeln!(page, "| `{key}` | {}{optional} | {doc} |", type_name(&kind)).unwrap();
        }
    }
    page
}

#[test]
fn the_reference_page_is_what_the_code_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = page();
    if std::env::var_os("DEEPSIM_WRITE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == page,
        "docs/configuration.md is not up to date; renew it: \
         DEEPSIM_WRITE_DOCS=1 cargo test -p deepsim-experiment --test reference"
    );
}

//! Table 1 of the paper: the generator, layer by layer.

use deepsim_nets::layers::decoder::DecoderPart;
use deepsim_nets::layers::op::Op;
use deepsim_nets::layers::shape::Extent;
use deepsim_nets::{FeatureShape, GeneratorSpec, NetError, Trunk};
use serde::Serialize;

use crate::error::Result;
use crate::show::format::{self, Format, columns};

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Prefix of the tensors' names.
    pub name: String,
    /// `fc`, `conv` or `uconv` (as the paper writes), or `reshape`; of a decoder of patches `embed`, `block` or `predict`.
    pub r#type: &'static str,
    /// Side of the map that goes in; null for vectors.
    pub in_size: Option<i64>,
    /// Side of the map that comes out; null for vectors.
    pub out_size: Option<i64>,
    /// Channels in.
    pub in_channels: i64,
    /// Channels out.
    pub out_channels: i64,
    /// Kernel side.
    pub kernel: Option<i64>,
    /// `↑2` where the size doubles.
    pub stride: &'static str,
    /// Weights and biases, those of batch normalisation among them.
    pub parameters: i64,
}

/// The generator of the paper's Table 1: FC6 at 227×227.
pub fn paper_spec() -> GeneratorSpec {
    GeneratorSpec {
        input: FeatureShape::Vector(4096),
        crop: 227,
        width: 1.0,
        trunk: Trunk::DeePSiM,
        noise: 0,
    }
}

/// The layers of a generator.
///
/// # Errors
/// A spec that cannot be built.
pub fn rows(spec: &GeneratorSpec) -> Result<Vec<Row>> {
    let mut x = Extent::of(spec.entering());
    let no_layer =
        |op: &Op| NetError::Spec(format!("a generator from {} has no {op:?}", spec.input));
    let mut out: Vec<Row> = Vec::new();
    for op in spec.layers()? {
        let y = op.output(x).ok_or_else(|| no_layer(&op))?;
        let (r#type, input, kernel, stride) = match op {
            Op::Fc { input, .. } => ("fc", input, None, ""),
            Op::Conv { input, kernel, .. } => ("conv", input, Some(kernel), "1"),
            Op::Keep { input, .. } => ("conv", input, Some(3), "1"),
            Op::Double { input, kernel, .. } => ("uconv", input, Some(kernel), "↑2"),
            Op::Decoder(_, part) => (kind(part), x.channels, None, ""),
            // What follows a layer is no row of its own; batch normalisation counts as the layer's.
            _ => {
                if let Some(row) = out.last_mut() {
                    row.parameters += op.parameters();
                }
                x = y;
                continue;
            }
        };
        let side = |x: Extent| (!x.flat).then_some(x.height);
        let mut from = x;
        if x.flat && kernel.is_some() {
            from = x.as_map(input).ok_or_else(|| no_layer(&op))?;
            out.push(Row {
                name: String::new(),
                r#type: "reshape",
                in_size: None,
                out_size: side(from),
                in_channels: x.channels,
                out_channels: input,
                kernel: None,
                stride: "",
                parameters: 0,
            });
        }
        out.push(Row {
            name: match op {
                Op::Decoder(_, part) => part.name(),
                _ => op.key().unwrap_or_default().to_owned(),
            },
            r#type,
            in_size: side(from),
            out_size: side(y),
            in_channels: input,
            out_channels: y.channels,
            kernel,
            stride,
            parameters: op.parameters(),
        });
        x = y;
    }
    Ok(out)
}

fn kind(part: DecoderPart) -> &'static str {
    match part {
        DecoderPart::Embed => "embed",
        DecoderPart::Block(_) => "block",
        DecoderPart::Predict => "predict",
    }
}

/// The table in a format.
///
/// # Errors
/// As [`rows`].
pub fn render(spec: &GeneratorSpec, format: Format) -> Result<String> {
    format::render(&rows(spec)?, format, |rows| text(rows, spec))
}

fn text(rows: &[Row], spec: &GeneratorSpec) -> String {
    let dash = |v: Option<i64>| v.map_or("-".to_owned(), |v| v.to_string());
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.r#type.to_owned(),
                r.name.clone(),
                dash(r.in_size),
                dash(r.out_size),
                r.in_channels.to_string(),
                r.out_channels.to_string(),
                dash(r.kernel),
                if r.stride.is_empty() {
                    "-".into()
                } else {
                    r.stride.to_owned()
                },
                r.parameters.to_string(),
            ]
        })
        .collect();
    let head = [
        "type",
        "name",
        "in",
        "out",
        "in ch",
        "out ch",
        "kernel",
        "stride",
        "parameters",
    ];
    let total: i64 = rows.iter().map(|r| r.parameters).sum();
    let crop = spec.crop;
    let images = match spec.trunk {
        Trunk::VaeGan | Trunk::Vit { .. } => format!("images of {crop}x{crop}"),
        Trunk::DeePSiM | Trunk::Db { .. } => {
            format!("the last map is cropped at its centre to {crop}x{crop}")
        }
    };
    format!(
        "Generator from features of {}\n\n{}\n{:.2} M parameters; {images}\n",
        spec.input,
        columns(&head, &cells),
        total as f64 / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fc6_is_the_paper_s_table_1() {
        let rows = rows(&paper_spec()).unwrap();
        let types: Vec<_> = rows.iter().map(|r| r.r#type).collect();
        assert_eq!(
            types,
            [
                "fc", "fc", "fc", "reshape", "uconv", "conv", "uconv", "conv", "uconv", "conv",
                "uconv", "uconv", "uconv"
            ]
        );
        let channels: Vec<_> = rows.iter().map(|r| r.out_channels).collect();
        assert_eq!(
            channels,
            [
                4096, 4096, 4096, 256, 256, 512, 256, 256, 128, 128, 64, 32, 3
            ]
        );
        let sizes: Vec<_> = rows.iter().skip(4).map(|r| r.in_size.unwrap()).collect();
        assert_eq!(sizes, [4, 8, 8, 16, 16, 32, 32, 64, 128]);
        let total: i64 = rows.iter().map(|r| r.parameters).sum();
        assert_eq!((total as f64 / 1e4).round() / 100.0, 56.10);
    }

    #[test]
    fn vaegan_decoder_has_its_normalisations_in_the_rows_of_its_layers() {
        let spec = GeneratorSpec {
            input: FeatureShape::Vector(128),
            crop: 64,
            trunk: Trunk::VaeGan,
            ..paper_spec()
        };
        let rows = rows(&spec).unwrap();
        let shown: Vec<_> = rows
            .iter()
            .map(|r| (r.r#type, r.out_size, r.out_channels))
            .collect();
        assert_eq!(
            shown,
            [
                ("fc", None, 16384),
                ("reshape", Some(8), 256),
                ("uconv", Some(16), 256),
                ("uconv", Some(32), 128),
                ("uconv", Some(64), 32),
                ("conv", Some(64), 3)
            ]
        );
        assert_eq!(rows[0].parameters, 128 * 16384 + 2 * 16384);
        assert_eq!(rows[5].parameters, 25 * 32 * 3 + 3);
    }

    #[test]
    fn decoder_of_patches_has_a_row_for_each_part() {
        let input = FeatureShape::Map {
            channels: 768,
            size: 16,
        };
        let trunk = Trunk::Vit {
            channels: 1152,
            blocks: 28,
            heads: 16,
            mlp: 4096,
        };
        let rows = rows(&GeneratorSpec {
            input,
            crop: 224,
            trunk,
            ..paper_spec()
        })
        .unwrap();
        assert_eq!(rows.len(), 30);
        let ends = [&rows[0], &rows[29]].map(|r| (r.name.as_str(), r.in_size, r.out_size));
        assert_eq!(
            ends,
            [
                ("decoder_embed", Some(16), Some(16)),
                ("decoder_pred", Some(16), Some(224))
            ]
        );
        assert_eq!(rows[28].name, "decoder_layers.27");
        // Positions do not learn; four square matrices, two of the perceptron, biases, two normalisations.
        assert_eq!(rows[0].parameters, (768 + 1) * 1152 + 1152);
        assert_eq!(
            rows[1].parameters,
            4 * 1153 * 1152 + 2 * 1152 * 4096 + 4096 + 1152 + 4 * 1152
        );
        assert_eq!(rows[29].parameters, 2 * 1152 + 1153 * 3 * 14 * 14);
    }
}

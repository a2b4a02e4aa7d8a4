//! Table 1 of the paper: the generator, layer by layer.

use deepsim_nets::generator::LayerOp;
use deepsim_nets::{FeatureShape, GeneratorSpec, Trunk};
use serde::Serialize;

use crate::error::Result;
use crate::show::format::{self, Format, columns};

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Prefix of the tensors' names.
    pub name: String,
    /// `fc`, `conv` or `uconv` (as the paper writes), or `reshape`.
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
    /// Weights and biases.
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
    let mut size = match spec.input {
        FeatureShape::Map { size, .. } => Some(size),
        FeatureShape::Vector(_) => None,
    };
    let mut out = Vec::new();
    for layer in spec.layers()? {
        let (r#type, kernel, stride, next) = match (layer.op, size) {
            (LayerOp::Fc, _) => ("fc", None, "", None),
            (LayerOp::Conv { kernel, pad }, s) => (
                "conv",
                Some(kernel),
                "1",
                s.map(|s| s + 2 * pad - kernel + 1),
            ),
            (LayerOp::Double { kernel }, s) => {
                ("uconv", Some(kernel), "↑2", Some(s.unwrap_or(4) * 2))
            }
            (LayerOp::Keep, s) => ("conv", Some(3), "1", s),
        };
        if size.is_none() && kernel.is_some() {
            out.push(Row {
                name: String::new(),
                r#type: "reshape",
                in_size: None,
                out_size: Some(4),
                in_channels: layer.input * 16,
                out_channels: layer.input,
                kernel: None,
                stride: "",
                parameters: 0,
            });
            size = Some(4);
        }
        let weights = layer.input * layer.output * kernel.map_or(1, |k| k * k);
        out.push(Row {
            name: layer.name.to_owned(),
            r#type,
            in_size: size,
            out_size: next,
            in_channels: layer.input,
            out_channels: layer.output,
            kernel,
            stride,
            parameters: weights + layer.output,
        });
        size = next;
    }
    Ok(out)
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
    format!(
        "Generator from features of {}\n\n{}\n{:.2} M parameters; the last map is cropped at its centre to {crop}x{crop}\n",
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
    }
}

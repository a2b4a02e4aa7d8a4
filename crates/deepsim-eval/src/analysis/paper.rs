//! The numbers that the paper prints.

/// A cell of Table 2 of the paper: method, comparator, layer, image error, feature error (percent).
pub type Cell = (
    &'static str,
    &'static str,
    &'static str,
    Option<f64>,
    Option<f64>,
);

/// Table 2: "Normalized inversion error (in %) when reconstructing from different layers of
/// AlexNet with different methods". CaffeNet weights, ILSVRC-2012 validation set.
pub const TABLE_2: &[Cell] = &[
    ("mv", "", "conv5", Some(71.0), Some(19.0)),
    ("mv", "", "fc6", Some(80.0), Some(19.0)),
    ("mv", "", "fc7", Some(82.0), Some(16.0)),
    ("mv", "", "fc8", Some(84.0), Some(9.0)),
    ("db", "", "conv5", Some(35.0), None),
    ("db", "", "fc6", Some(51.0), None),
    ("db", "", "fc7", Some(56.0), None),
    ("db", "", "fc8", Some(58.0), None),
    ("image-loss", "", "fc6", Some(46.0), Some(79.0)),
    ("deepsim", "caffenet:pool5", "conv5", Some(43.0), Some(37.0)),
    ("deepsim", "caffenet:pool5", "fc6", Some(55.0), Some(48.0)),
    ("deepsim", "caffenet:pool5", "fc7", Some(61.0), Some(45.0)),
    ("deepsim", "caffenet:pool5", "fc8", Some(63.0), Some(29.0)),
    ("deepsim", "videonet:pool5", "fc6", Some(51.0), Some(57.0)),
];

/// The paper's errors for a method, comparator and layer, where it prints any.
pub fn errors(method: &str, comparator: &str, layer: &str) -> Option<(Option<f64>, Option<f64>)> {
    let cell = TABLE_2.iter().find(|(m, c, l, _, _)| {
        *m == method && *l == layer && (c.is_empty() || *c == comparator)
    })?;
    Some((cell.3, cell.4))
}

//! Times the bf16 convolutions of the paper's networks, layer by layer, at a batch of 64 or as
//! given: `bf16_layers [BATCH [LAYER]]`. GFLOP/s count the products of the direct sums.

use std::time::Instant;

use deepsim_aten::{AtenError, Bf16Convolution, Direction, Output, bf16_convolution, keep_memory};
use tch::{Device, Kind, Tensor};

/// Name, channels and side of the input, output channels, kernel, stride, padding, groups; 0 groups
/// for a transposed convolution.
type Layer = (&'static str, i64, i64, i64, i64, i64, i64, i64);

const LAYERS: [Layer; 22] = [
    ("conv1", 3, 227, 96, 11, 4, 0, 1),
    ("conv2", 96, 27, 256, 5, 1, 2, 2),
    ("conv3", 256, 13, 384, 3, 1, 1, 1),
    ("conv4", 384, 13, 384, 3, 1, 1, 2),
    ("conv5", 384, 13, 256, 3, 1, 1, 2),
    ("Rconv6", 256, 6, 512, 3, 1, 1, 1),
    ("Rconv7", 512, 6, 512, 3, 1, 1, 1),
    ("Rconv8", 512, 6, 512, 3, 1, 0, 1),
    ("deconv5", 256, 4, 256, 4, 2, 1, 0),
    ("conv5_1", 256, 8, 512, 3, 1, 1, 0),
    ("deconv4", 512, 8, 256, 4, 2, 1, 0),
    ("conv4_1", 256, 16, 256, 3, 1, 1, 0),
    ("deconv3", 256, 16, 128, 4, 2, 1, 0),
    ("conv3_1", 128, 32, 128, 3, 1, 1, 0),
    ("deconv2", 128, 32, 64, 4, 2, 1, 0),
    ("deconv1", 64, 64, 32, 4, 2, 1, 0),
    ("deconv0", 32, 128, 3, 4, 2, 1, 0),
    ("Dconv1", 3, 227, 32, 7, 4, 0, 1),
    ("Dconv2", 32, 56, 64, 5, 1, 0, 1),
    ("Dconv3", 64, 52, 128, 3, 2, 0, 1),
    ("Dconv4", 128, 25, 256, 3, 1, 0, 1),
    ("Dconv5", 256, 23, 256, 3, 2, 0, 1),
];

const ROUNDS: usize = 15;

fn main() -> Result<(), AtenError> {
    keep_memory();
    let batch = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(64);
    println!(
        "{:<8} {:>9} {:>19} {:>19} {:>19}",
        "layer", "GFLOP", "forward", "to the map", "to the weights"
    );
    let mut totals = [0.0f64; 3];
    for (name, inputs, side, outputs, kernel, stride, padding, groups) in LAYERS {
        if std::env::args().nth(2).is_some_and(|only| only != name) {
            continue;
        }
        let options = (Kind::Float, Device::Cpu);
        let (direction, shape, slope) = match groups {
            0 => (Direction::Up, [inputs, outputs, kernel, kernel], 0.3),
            _ => (
                Direction::Down { groups },
                [outputs, inputs / groups, kernel, kernel],
                0.0,
            ),
        };
        let image = outputs == 3;
        let output = if image {
            Output::Fp32Window {
                top: 14,
                left: 14,
                height: 227,
                width: 227,
            }
        } else {
            Output::Bf16
        };
        let with = Bf16Convolution {
            direction,
            stride,
            padding,
            slope: if image { 1.0 } else { slope },
            output,
        };
        let x = Tensor::randn([batch, inputs, side, side], options);
        let x = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let x = if inputs == 3 {
            x
        } else {
            x.to_kind(Kind::BFloat16)
        };
        let w = (Tensor::randn(shape, options) * 0.02).set_requires_grad(true);
        let leaf = x.detach().set_requires_grad(true);
        // Forward; forward's sum to the map and to the weights; the way from the sum to the output.
        let mut best = [f64::MAX; 4];
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let y = bf16_convolution(&leaf, &w, None, with)?;
            best[0] = best[0].min(begun.elapsed().as_secs_f64());
            let dy = y.ones_like();
            let sum = [y.shallow_clone()];
            for (at, to) in [(1, &leaf), (2, &w), (3, &y)] {
                let begun = Instant::now();
                let _ = backward(&sum, to, &dy);
                best[at] = best[at].min(begun.elapsed().as_secs_f64());
            }
        }
        // What the way from the sum to the output costs is not the convolution's. The fastest of
        // each is subtracted: differences of single rounds would choose the luckiest pair.
        let best = [best[0], best[1] - best[3], best[2] - best[3]];
        let out = match groups {
            0 => side,
            _ => (side + 2 * padding - kernel) / stride + 1,
        };
        let per = (inputs / groups.max(1) * outputs * kernel * kernel * out * out) as f64;
        let gflop = 2.0 * per * batch as f64 / 1e9;
        let cell = |s: f64| format!("{:6.2} ms {:5.0} GF/s", s * 1e3, gflop / s);
        println!(
            "{name:<8} {gflop:9.1} {:>19} {:>19} {:>19}",
            cell(best[0]),
            cell(best[1]),
            cell(best[2])
        );
        for (total, s) in totals.iter_mut().zip(best) {
            *total += s;
        }
    }
    println!(
        "all: {:.1} ms, {:.1} ms, {:.1} ms",
        totals[0] * 1e3,
        totals[1] * 1e3,
        totals[2] * 1e3
    );
    Ok(())
}

fn backward(y: &[Tensor; 1], to: &Tensor, dy: &Tensor) -> Vec<Tensor> {
    // With a gradient of ones: the sum's own gradient would be an expanded scalar.
    let pulled = (&y[0] * dy).sum(Kind::Float);
    Tensor::run_backward(&[pulled], &[to], true, false)
}

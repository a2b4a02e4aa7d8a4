//! Operations of our own have no second derivatives, and say so where a graph of gradients is asked for.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use deepsim_aten::{
    AtenError, Bf16Code, Bf16Convolution, Direction, Form, LastWindow, Output, bf16_code,
    bf16_convolution, bf16_linear, bf16_lrn, bf16_max_pool, choose_bf16_code, in_turns,
    squared_distance, ssim, summed, winograd,
};
use tch::{Device, Kind, Tensor};

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// Gradients of the sum of `operation`'s result with regard to its inputs: without a graph they come,
/// with one they are refused in `name`'s name.
fn refuses(name: &str, inputs: &[Tensor], operation: &dyn Fn(&[Tensor]) -> Tensor) {
    let leaves: Vec<Tensor> = inputs
        .iter()
        .map(|input| input.copy().set_requires_grad(true))
        .collect();
    let gradients = |graph: bool| {
        let loss = operation(&leaves).sum(Kind::Float);
        Tensor::f_run_backward(&[loss], &leaves, true, graph)
    };
    assert_eq!(gradients(false).unwrap().len(), leaves.len(), "{name}");
    // Of the inputs each by itself: none may be answered silently.
    let text = gradients(true).unwrap_err().to_string();
    let wanted = format!("{name} has no second derivatives");
    assert!(text.contains(&wanted), "{text}");
    for leaf in &leaves {
        let loss = operation(&leaves).sum(Kind::Float);
        let text = Tensor::f_run_backward(&[loss], &[leaf], true, true)
            .unwrap_err()
            .to_string();
        assert!(text.contains(&wanted), "{text}");
    }
}

/// One test, because the chosen code is the process's.
#[test]
fn a_graph_of_gradients_is_refused_by_every_operation_of_our_own() {
    let best = bf16_code();
    let map = random(&[1, 8, 12, 12], Kind::BFloat16);
    let weight = random(&[8, 8, 3, 3], Kind::Float);
    let bias = random(&[8], Kind::Float);
    for code in Bf16Code::up_to(best) {
        choose_bf16_code(code);
        for direction in [Direction::Down { groups: 1 }, Direction::Up] {
            let with = Bf16Convolution {
                direction,
                stride: 1,
                padding: 1,
                slope: 0.3,
                output: Output::Bf16,
            };
            let inputs = [
                map.shallow_clone(),
                weight.shallow_clone(),
                bias.shallow_clone(),
            ];
            refuses("bf16 convolution", &inputs, &|t| {
                bf16_convolution(&t[0], &t[1], Some(&t[2]), with).unwrap()
            });
        }
        refuses("bf16 max pooling", &[map.shallow_clone()], &|t| {
            bf16_max_pool(&t[0], LastWindow::Counts).unwrap()
        });
        refuses(
            "bf16 local response normalisation",
            &[map.shallow_clone()],
            &|t| bf16_lrn(&t[0], 1e-4).unwrap(),
        );
        let rows = [
            random(&[4, 6], Kind::BFloat16),
            random(&[5, 6], Kind::Float),
            random(&[5], Kind::Float),
        ];
        refuses("bf16 fully connected layer", &rows, &|t| {
            bf16_linear(&t[0], &t[1], Some(&t[2]), 0.3).unwrap()
        });
    }
    choose_bf16_code(best);
    let map = map.to_kind(Kind::Float);
    refuses(
        "convolution by Winograd's algorithm",
        &[map.shallow_clone(), weight, bias],
        &|t| winograd(&t[0], &t[1], Some(&t[2]), Form::Keep, 0.3).unwrap(),
    );
    let other = random(&[1, 8, 12, 12], Kind::Float);
    let both = [map.shallow_clone(), other];
    refuses("structural similarity", &both, &|t| {
        ssim(&t[0], &t[1], 1e-2, 3e-2).unwrap()
    });
    refuses("squared distance", &both, &|t| {
        squared_distance(&t[0], &t[1]).unwrap()
    });
    in_turns(None, 1, |_| {
        refuses(
            "sum over the parts of a batch",
            &[random(&[3], Kind::Float)],
            &|t| summed(&t[0]).unwrap(),
        );
        Ok::<_, AtenError>(())
    })
    .unwrap();
}

//! Sums that go on beside other work: of several tensors at once, and of gradients while their backward pass runs.

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use deepsim_aten::{Buckets, Layout, ProcessGroup};
use tch::{Device, Kind, Tensor};

use crate::{PATIENT, SLACK, failure, said_by_all, say, say_failure, start_all};

const SHAPES: [&[i64]; 4] = [&[40, 30], &[40], &[7, 40], &[7]];

/// For gradients of weights of these shapes, in several buckets.
fn buckets(sent: Kind) -> Buckets {
    let buckets = Buckets::new(Layout {
        shapes: SHAPES.iter().map(|shape| shape.to_vec()).collect(),
        kind: Kind::Float,
        sent,
        device: Device::Cpu,
        bucket_bytes: 1000,
    });
    buckets.unwrap()
}

fn drawn(seed: i64) -> Vec<Tensor> {
    tch::manual_seed(seed);
    let draw = |shape: &&[i64]| Tensor::randn(*shape, (Kind::Float, Device::Cpu));
    SHAPES.iter().map(draw).collect()
}

/// Sums what lies in the buckets, and a number of another type beside them.
fn summed(group: &ProcessGroup, buckets: &Buckets) {
    let beside = Tensor::from_slice(&[1i64]);
    let sent = buckets.to_send().unwrap().iter();
    let all: Vec<&Tensor> = sent.chain([&beside]).collect();
    group.all_reduce_start(&all).unwrap().wait().unwrap();
    buckets.take_back().unwrap();
    assert_eq!(beside.int64_value(&[0]), group.size());
}

/// Buckets of every rank's own gradients, in both types.
pub fn bucket_sums(group: &ProcessGroup) {
    let size = group.size();
    for (sent, limit) in [
        (Kind::Float, 1e-6),
        // Rounded once when it is sent, and in every addition.
        (Kind::BFloat16, (size + 1) as f64 / 512.0),
    ] {
        let buckets = buckets(sent);
        buckets.take(&drawn(group.rank())).unwrap();
        summed(group, &buckets);
        let all: Vec<Vec<Tensor>> = (0..size).map(drawn).collect();
        let mut hash = DefaultHasher::new();
        for (i, found) in buckets.places().iter().enumerate() {
            let each = || all.iter().map(|of_rank| of_rank[i].to_kind(Kind::Double));
            let expected = each().reduce(|a, b| a + b).unwrap();
            let magnitude = each().map(|t| t.abs()).reduce(|a, b| a + b).unwrap();
            let off = (found.to_kind(Kind::Double) - expected).abs() - magnitude * limit;
            assert!(off.max().double_value(&[]) <= 0.0, "{sent:?} {i}");
            for value in Vec::<f32>::try_from(found.reshape([-1])).unwrap() {
                hash.write_u32(value.to_bits());
            }
        }
        say(format_args!(
            "{} {sent:?} {:x}",
            buckets.count(),
            hash.finish()
        ));
    }
    // Tensors that differ are told, and nothing has begun.
    let tensor = Tensor::ones([10 + group.rank()], (Kind::Float, Device::Cpu));
    let rest = Tensor::ones([20 - group.rank()], (Kind::Float, Device::Cpu));
    let error = group.all_reduce_start(&[&tensor, &rest]).unwrap_err();
    assert!(error.to_string().contains("layout"), "{error}");
}

/// The loss of a network of two layers on this rank's own inputs.
fn loss(weights: &[Tensor], rank: i64, batch: i64) -> Tensor {
    tch::manual_seed(1000 * batch + rank);
    let x = Tensor::randn([16, 30], (Kind::Float, Device::Cpu));
    let hidden = x.linear(&weights[0], Some(&weights[1])).relu();
    let out = hidden.linear(&weights[2], Some(&weights[3]));
    out.square().sum(Kind::Float)
}

/// Sums that start during the backward pass, and those after it.
pub fn overlapped(group: &ProcessGroup) {
    let weights: Vec<Tensor> = drawn(5)
        .into_iter()
        .map(|weight| weight.set_requires_grad(true))
        .collect();
    let refs: Vec<&Tensor> = weights.iter().collect();
    let gradients = |batch: i64| {
        let loss = loss(&weights, group.rank(), batch);
        Tensor::run_backward(&[loss], &refs, false, false)
    };
    for sent in [Kind::Float, Kind::BFloat16] {
        let (apart, along) = (buckets(sent), buckets(sent));
        // The same buffer again and again, alone and with what an earlier micro-batch has found.
        for (batch, earlier) in [(1, None), (2, None), (3, Some(4)), (5, None)] {
            let own = gradients(batch);
            let sum: Vec<Tensor> = match earlier {
                Some(earlier) => {
                    let earlier = gradients(earlier);
                    along.take(&earlier).unwrap();
                    earlier.iter().zip(&own).map(|(a, b)| a + b).collect()
                }
                None => own,
            };
            apart.take(&sum).unwrap();
            summed(group, &apart);
            let loss = loss(&weights, group.rank(), batch);
            let under_way = along.backward(group, &loss, &refs, earlier.is_some());
            under_way.unwrap().wait().unwrap();
            along.take_back().unwrap();
            assert_eq!(along.places(), apart.places(), "{sent:?} {batch}");
        }
        // Nothing is left at the weights: another pass does not write there.
        let before: Vec<Tensor> = along.places().iter().map(Tensor::copy).collect();
        gradients(6);
        assert_eq!(along.places(), before);
    }
    let along = buckets(Kind::Float);
    let refuses = |loss: &Tensor, words: &str| {
        let error = along.backward(group, loss, &refs, false).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    let part = weights[..3].iter().map(|w| w.sum(Kind::Float));
    let part = part.reduce(|a, b| a + b).unwrap();
    refuses(&part, "weight 3 takes no part in the loss");
    refuses(&weights[0], "one number with a graph");
    refuses(&part.detach(), "one number with a graph");
    let all = loss(&weights, group.rank(), 7);
    let exchanged = deepsim_aten::in_turns(None, 1, |_| deepsim_aten::summed(&all)).unwrap();
    let exchanged = exchanged.into_iter().next().unwrap();
    refuses(&exchanged, "an exchange inside a backward pass");
    say("done");
}

/// Ends while its sums are under way: rank 1, without a word. The others are told.
pub fn dies(group: &ProcessGroup) {
    let zeros = |_| Tensor::zeros([25_000_000], (Kind::Float, Device::Cpu));
    let tensors: Vec<Tensor> = (0..4).map(zeros).collect();
    let all: Vec<&Tensor> = tensors.iter().collect();
    group.barrier().unwrap();
    let under_way = group.all_reduce_start(&all).unwrap();
    if group.rank() == 1 {
        std::thread::sleep(Duration::from_millis(20));
        std::process::abort();
    }
    let begun = Instant::now();
    say_failure(begun, under_way.wait());
    assert!(group.barrier().is_err());
}

#[test]
fn buckets_are_summed_near_the_exact_sum_and_alike_in_all_processes() {
    for size in [2, 3] {
        let all = said_by_all("buckets", size, PATIENT);
        assert_eq!(all[0].len(), 3);
        assert!(all[0][0].starts_with("2 Float "), "{:?}", all[0]);
        for said in &all {
            assert_eq!(*said, all[0], "{size}");
        }
    }
}

#[test]
fn sums_beside_the_backward_pass_are_those_after_it() {
    for size in [2, 3] {
        for said in said_by_all("overlapped", size, PATIENT) {
            assert_eq!(said, ["done", "left"], "{size}");
        }
    }
}

#[test]
fn a_process_that_dies_while_sums_are_under_way_fails_the_others_wait() {
    let mut ranks = start_all("dies", 2, PATIENT);
    let _second = ranks.pop().unwrap();
    let said = ranks.pop().unwrap().ends();
    let (time, text) = failure(&said[0]);
    assert!(time < 5 * SLACK, "{time:?}");
    assert!(text.starts_with("a process has ended: "), "{text}");
    assert_eq!(said[1], "left");
}

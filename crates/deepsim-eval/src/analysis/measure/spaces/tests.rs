use super::*;

fn space(net: NetKind, encoder: bool) -> Space {
    Space {
        features: Some(Box::new(|rgb: &Tensor| Ok(rgb.shallow_clone()))),
        net: Some(net),
        wanted: vec![Number::Frechet, Number::Kernel, Number::PrecisionAndRecall],
        encoder,
        protocol: Protocol {
            weights: vec![Weights {
                file: "x".to_owned(),
                blake3: "ab".to_owned(),
            }],
            ..Protocol::default()
        },
    }
}

/// What it says of rows of four values.
fn values(space: &Space, of: impl Fn(usize, usize) -> f64) -> Vec<Value> {
    let mut gathered = Gathered::default();
    for side in [0, 1] {
        let rows = (0..4 * LEAST).map(|i| of(side, i));
        let numbers: Vec<f64> = std::iter::once(4.0).chain(rows).collect();
        space.add(&mut gathered, side, &numbers).unwrap();
    }
    space.values(&gathered, 0).unwrap()
}

#[test]
fn fid_of_a_run_that_was_trained_with_its_network_is_shared_and_an_encoder_is_told() {
    let apart = |side: usize, i: usize| ((i * i + 7 * side) % 13) as f64;
    let used = [NetKind::InceptionFid];
    let mut fid = space(NetKind::InceptionFid, false);
    assert!(values(&fid, apart).iter().all(|v| v.value.is_some()));
    fid.beside(&[NetKind::AlexNet], &["ab"]);
    assert!(values(&fid, apart).iter().all(|v| v.value.is_some()));
    fid.beside(&used, &[]);
    for value in values(&fid, apart) {
        assert_eq!(value.value, None, "{}", value.key);
        assert!(value.protocol.reason.unwrap().starts_with("shared"));
    }
    check(&[fid], [1, 1]).unwrap();
    let (nothing, no_digest): (&[NetKind], &[&str]) = (&[], &[]);
    for (used, digests, told) in [
        (&used[..], no_digest, true),
        (nothing, &["ab"][..], true),
        (&[NetKind::AlexNet][..], &["cd"][..], false),
    ] {
        let mut encoder = space(NetKind::InceptionFid, true);
        encoder.beside(used, digests);
        for value in values(&encoder, apart) {
            let remark = value.protocol.remark.unwrap_or_default();
            assert_eq!(
                remark.contains("trained with this network"),
                told,
                "{remark}"
            );
            assert!(value.value.is_some());
        }
    }
}

#[test]
fn features_that_are_not_finite_give_no_number() {
    let space = space(NetKind::InceptionFid, false);
    for bad in [f64::NAN, f64::INFINITY] {
        let found = values(
            &space,
            |side, i| if (side, i) == (1, 5) { bad } else { i as f64 },
        );
        assert_eq!(found.len(), 4);
        for value in found {
            assert_eq!(value.value, None, "{}", value.key);
            let reason = value.protocol.reason.unwrap();
            assert_eq!(reason, "the features are not finite");
        }
    }
}

#[test]
fn few_images_are_refused() {
    let spaces = [space(NetKind::InceptionFid, false)];
    check(&spaces, [LEAST, LEAST]).unwrap();
    for counts in [[5, 5], [LEAST, LEAST - 1]] {
        let error = check(&spaces, counts).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("say nothing"), "{error}");
    }
    check(&[], [1, 1]).unwrap();
}

#[test]
fn an_encoder_that_learns_is_refused() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/sample/ae-l1.toml");
    let experiment = Experiment::load(&file, &[]).unwrap();
    for purpose in [Purpose::Distributions, Purpose::Pairs] {
        let error = Space::encoder(&experiment, purpose, &Consent::none(), Device::Cpu);
        let error = error.err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("[latent]"), "{error}");
    }
}

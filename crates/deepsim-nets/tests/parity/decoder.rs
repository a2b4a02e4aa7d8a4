//! The generator that makes patches of tokens, against the library that masked autoencoders are run with.

use deepsim_nets::images::caffe_to_rgb;
use deepsim_nets::{Generator, Trunk};
use tch::{Device, Kind};

use crate::common::{Reference, assert_close, assert_parity};
use crate::{generator_with, trained};

/// Several maps and patches; positions of a new generator are the library's too.
#[test]
fn generators_of_patches() {
    for options in [
        "--features 12,3 --crop 24 --batch 2",
        "--features 7,5 --crop 20 --batch 1",
        "--features 9,1 --crop 8 --batch 2",
    ] {
        let case = format!("mae-decoder {options}");
        let r = Reference::run(&case);
        let [channels, blocks, heads, mlp] = r.numbers("sizes")[..] else {
            panic!("four sizes");
        };
        let trunk = Trunk::Vit {
            channels,
            blocks,
            heads,
            mlp,
        };
        let compute = |kind| {
            let x = r.leaf("x", kind);
            let g = generator_with(&r, "w/", trunk, kind);
            let y = caffe_to_rgb(&g.forward(&x).unwrap()).unwrap();
            trained(&r, g.params(), &x, &y)
        };
        assert_parity(&case, &r, &compute);
        let spec = generator_with(&r, "w/", trunk, Kind::Float).spec().clone();
        let new = Generator::new(spec, 3, Device::Cpu).unwrap();
        let positions = new.params().get("decoder_pos_embed").unwrap();
        assert_close("positions", positions, r.get("w/decoder_pos_embed"), 1e-6);
        assert!(!positions.requires_grad());
    }
}

//! Tables of vision transformers, which differ in what [`Vit`] says of them and in their ends.

use crate::layers::op::{Op, Row};
use crate::layers::tap::Tap;
use crate::layers::vit::{Vit, VitPart};

/// Most blocks that a table has.
const MOST: usize = 24;

const BLOCKS: [Tap; MOST] = [
    Tap::Block0,
    Tap::Block1,
    Tap::Block2,
    Tap::Block3,
    Tap::Block4,
    Tap::Block5,
    Tap::Block6,
    Tap::Block7,
    Tap::Block8,
    Tap::Block9,
    Tap::Block10,
    Tap::Block11,
    Tap::Block12,
    Tap::Block13,
    Tap::Block14,
    Tap::Block15,
    Tap::named("block16"),
    Tap::named("block17"),
    Tap::named("block18"),
    Tap::named("block19"),
    Tap::named("block20"),
    Tap::named("block21"),
    Tap::named("block22"),
    Tap::named("block23"),
];

/// A table of `N` rows: `embed`, then `block0` … as many as there is room for in front of `end`.
///
/// # Panics
/// More than 24 blocks, or an end that is longer than the table. Tables are constants: the compiler refuses these.
pub const fn rows<const N: usize>(vit: &'static Vit, end: &[Row]) -> [Row; N] {
    let mut rows = [(Tap::named("embed"), Op::Vit(vit, VitPart::Embed)); N];
    let blocks = N - 1 - end.len();
    let mut i = 0;
    while i < blocks {
        rows[1 + i] = (BLOCKS[i], Op::Vit(vit, VitPart::Block(i)));
        i += 1;
    }
    let mut i = 0;
    while i < end.len() {
        rows[1 + blocks + i] = end[i];
        i += 1;
    }
    rows
}

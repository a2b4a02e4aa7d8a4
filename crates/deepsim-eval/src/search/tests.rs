mod streaming;

use super::*;
use proptest::prelude::*;

const KINDS: [Candidates; 4] = [
    Candidates::Auto,
    Candidates::Bf16,
    Candidates::Int8,
    Candidates::Fp32,
];

fn with(candidates: Candidates) -> Settings {
    Settings {
        candidates,
        ..Settings::default()
    }
}

/// Every pair measured, sorted by distance and index.
fn brute(references: &[f32], queries: &[f32], dim: usize, k: usize) -> Vec<Vec<(f64, u64)>> {
    queries
        .chunks(dim)
        .map(|q| {
            let distance = |r: &[f32]| -> f64 {
                let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
                q.iter().zip(r).map(square).sum()
            };
            let mut all: Vec<(f64, u64)> = references
                .chunks(dim)
                .zip(0..)
                .map(|(r, i)| (squared_distance(q, r), i))
                .collect();
            for (&(got, _), r) in all.iter().zip(references.chunks(dim)) {
                let want = distance(r);
                assert!((got - want).abs() <= 1e-12 * want, "{got} {want}");
            }
            all.sort_by(|a, b| a.partial_cmp(b).unwrap());
            all.truncate(k);
            all
        })
        .collect()
}

fn pairs(found: &Neighbors) -> Vec<Vec<(f64, u64)>> {
    let row = |i| {
        let distances = found.squared(i).iter().copied();
        distances.zip(found.indices(i).iter().copied()).collect()
    };
    (0..found.len()).map(row).collect()
}

/// Bits, because the promise is the same number, not a near one.
fn assert_exact(references: &[f32], queries: &[f32], dim: usize, k: usize) -> Vec<Stats> {
    let want = brute(references, queries, dim, k);
    let mut stats = Vec::new();
    for kind in KINDS {
        let index = Index::build(references, dim, &with(kind)).unwrap();
        let found = index.search(queries, k).unwrap();
        assert_eq!(pairs(&found), want, "{kind}");
        let s = found.stats;
        assert_eq!(s.certified + s.widened + s.measured, want.len() as u64);
        assert_ne!(s.candidates, Candidates::Auto);
        // Tiny blocks that do not divide anything.
        let small = Settings {
            candidates: kind,
            tile: 7,
            queries: 3,
        };
        let mut searcher = Searcher::new(queries, dim, k, &small).unwrap();
        for block in references.chunks(dim * 11) {
            searcher.add(block).unwrap();
        }
        assert_eq!(pairs(&searcher.finish().unwrap()), want, "{kind}");
        stats.push(s);
    }
    stats
}

/// Rows of a fixed random sequence, about N(0, deviation²).
fn noise(name: &str, n: usize, dim: usize, deviation: f64) -> Vec<f32> {
    let t = deepsim_nets::init::normal(name, &[n as i64, dim as i64], deviation, 5).unwrap();
    rows(&t).unwrap().0
}

fn shifted(mut x: Vec<f32>, dim: usize, column: impl Fn(usize) -> f32) -> Vec<f32> {
    for (i, v) in x.iter_mut().enumerate() {
        *v += column(i % dim);
    }
    x
}

#[test]
fn random_rows_are_certified_in_few_bits() {
    let (references, queries) = (noise("r", 3000, 200, 1.0), noise("q", 20, 200, 1.0));
    for stats in assert_exact(&references, &queries, 200, 5) {
        assert_eq!(stats.certified, 20, "{stats}");
        assert!(stats.pairs < 20 * 600, "{stats}");
    }
}

#[test]
fn references_one_bit_apart_are_told_apart() {
    let dim = 64;
    let one = noise("one", 1, dim, 1.0);
    let mut references = Vec::new();
    for i in 0..1500usize {
        let mut row = one.clone();
        let at = i * 7 % dim;
        row[at] = f32::from_bits(row[at].to_bits() + (i % 3) as u32);
        references.extend(row);
    }
    let queries = [one.clone(), noise("two", 2, dim, 1.0)].concat();
    let stats = assert_exact(&references, &queries, dim, 9);
    // From afar no bound below fp64's can tell these apart; near by, centring helps.
    assert_eq!(stats[2].measured, 2, "{}", stats[2]);
}

#[test]
fn ties_go_to_the_lower_index() {
    let dim = 40;
    let row = noise("row", 1, dim, 1.0);
    let references = row.repeat(2100);
    let index = Index::build(&references, dim, &with(Candidates::Int8)).unwrap();
    let found = index.search(&row, 4).unwrap();
    assert_eq!(found.indices(0), [0, 1, 2, 3]);
    assert_eq!(found.squared(0), [0.0; 4]);
    // Equal distances of different rows: ±1 along each axis, seen from 0.
    let mut axes = vec![0.0f32; 30 * 15];
    for i in 0..30 {
        axes[i * 15 + i % 15] = if i < 15 { 1.0 } else { -1.0 };
    }
    assert_exact(&axes, &[0.0; 15], 15, 7);
}

#[test]
fn duplicates_zero_rows_and_constant_rows() {
    let dim = 33;
    let base = noise("base", 40, dim, 3.0);
    let mut references = base.repeat(3);
    references.extend(vec![0.0; dim * 2]);
    references.extend(vec![2.5; dim * 2]);
    let queries = [&base[..dim * 3], &vec![0.0; dim], &vec![2.5; dim]].concat();
    assert_exact(&references, &queries, dim, 6);
    assert_exact(&vec![0.0; dim * 5], &vec![0.0; dim], dim, 3);
    assert_exact(&vec![1.5; dim * 5], &vec![-1.5; dim], dim, 3);
}

#[test]
fn a_huge_common_offset_does_not_cancel() {
    let dim = 96;
    let offset = |x| shifted(x, dim, |c| 1e6 + 1e3 * c as f32);
    let references = offset(noise("r", 600, dim, 8.0));
    let queries = offset(noise("q", 5, dim, 8.0));
    let stats = assert_exact(&references, &queries, dim, 4);
    assert!(stats.iter().all(|s| s.certified == 5));
    // Queries far from what the references are centred on.
    assert_exact(&references, &noise("far", 3, dim, 1.0), dim, 4);
}

#[test]
fn one_column_a_million_times_larger() {
    let dim = 256;
    let with_outlier = |mut x: Vec<f32>| {
        for (i, row) in x.chunks_mut(dim).enumerate() {
            row[17] = 1e6 * ((i % 5) as f32 - 2.0);
        }
        x
    };
    let references = with_outlier(noise("r", 1400, dim, 1.0));
    let queries = with_outlier(noise("q", 6, dim, 1.0));
    assert_exact(&references, &queries, dim, 5);
}

#[test]
fn the_range_of_fp32_is_covered() {
    for scale in [1e-44f32, 1e-40, 1e-30, 1e-20, 1e20, 1e30, 1e37] {
        let scaled = |x: Vec<f32>| x.into_iter().map(|v| v * scale).collect::<Vec<f32>>();
        let references = scaled(noise("r", 300, 24, 1.0));
        assert_exact(&references, &scaled(noise("q", 4, 24, 1.0)), 24, 3);
        // Queries of another magnitude altogether.
        assert_exact(&references, &noise("q", 2, 24, 1.0), 24, 3);
        assert_exact(&noise("r", 300, 24, 1.0), &references[..48], 24, 3);
    }
    // All magnitudes side by side, up to the ends of the range.
    let magnitudes = |i: usize| 10.0f32.powi(i as i32 % 76 - 38);
    let mixed: Vec<f32> = noise("m", 200, 10, 1.0)
        .into_iter()
        .enumerate()
        .map(|(i, v)| v.clamp(-3.0, 3.0) * magnitudes(i / 10))
        .collect();
    assert_exact(&mixed, &mixed[..300], 10, 4);
    let ends = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 0.0, 1.0, -1.0];
    assert_exact(&ends, &ends, 1, 6);
    assert_exact(&ends, &ends, 2, 2);
}

#[test]
fn small_shapes() {
    let references = noise("r", 9, 1, 1.0);
    assert_exact(&references, &noise("q", 3, 1, 1.0), 1, 4);
    let index = Index::build(&references, 1, &Settings::default()).unwrap();
    assert_eq!((index.len(), index.is_empty()), (9, false));
    // More neighbours than references: all of them.
    let all = index.search(&[0.0, 1.0], 50).unwrap();
    assert_eq!((all.k(), all.len(), all.indices(1).len()), (9, 2, 9));
    assert!(all.indices(2).is_empty());
    let none = index.search(&[], 3).unwrap();
    assert!(none.is_empty());
    assert!(none.stats.to_string().starts_with("0 queries"));
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let settings = Settings::default();
    let message = |e: SearchError| e.to_string();
    for kind in KINDS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise("x", 700, 3, 1.0);
            x[3 * 600 + 1] = bad;
            let error = Index::build(&x, 3, &with(kind)).map(|_| ()).unwrap_err();
            assert_eq!(message(error), "references: row 600 holds NaN or infinity");
            let good = noise("y", 5, 3, 1.0);
            let index = Index::build(&good, 3, &with(kind)).unwrap();
            let error = index.search(&x, 1).unwrap_err();
            assert_eq!(message(error), "queries: row 600 holds NaN or infinity");
            let mut searcher = Searcher::new(&good, 3, 1, &with(kind)).unwrap();
            searcher.add(&good).unwrap();
            let error = searcher.add(&x).unwrap_err();
            assert_eq!(message(error), "references: row 605 holds NaN or infinity");
        }
    }
    assert!(Index::build(&[], 3, &settings).is_err());
    assert!(Index::build(&[1.0; 4], 3, &settings).is_err());
    assert!(Index::build(&[1.0; 4], 0, &settings).is_err());
    let index = Index::build(&[1.0; 6], 3, &settings).unwrap();
    assert!(index.search(&[1.0; 3], 0).is_err());
    assert!(index.search(&[1.0; 4], 1).is_err());
    assert!(
        Searcher::new(&[1.0; 3], 3, 1, &settings)
            .unwrap()
            .finish()
            .is_err()
    );
    let zero = Settings {
        tile: 0,
        ..Settings::default()
    };
    assert!(Searcher::new(&[1.0; 3], 3, 1, &zero).is_err());
    assert!(rows(&Tensor::from_slice(&[1.0f32])).is_err());
}

#[test]
fn queries_that_few_bits_cannot_decide_are_widened() {
    // Tight clusters: 8 bits of a row cannot tell members apart, fp32 can.
    let (dim, members) = (128, 1500);
    let centres = noise("c", 3, dim, 1.0);
    let offsets = noise("o", 3 * members, dim, 2e-2);
    let references: Vec<f32> = (0..3 * members)
        .flat_map(|i| {
            let centre = &centres[i % 3 * dim..][..dim];
            let offset = &offsets[i * dim..][..dim];
            centre
                .iter()
                .zip(offset)
                .map(|(c, o)| c + o)
                .collect::<Vec<f32>>()
        })
        .collect();
    let stats = assert_exact(&references, &references[..dim * 10], dim, 5);
    assert!(
        stats[2].widened > 3 && stats[2].measured == 0,
        "{}",
        stats[2]
    );
    assert!(stats[2].pairs < 10 * 4500, "{}", stats[2]);
}

#[test]
fn threads_change_nothing() {
    let (references, queries) = (noise("r", 900, 50, 1.0), noise("q", 37, 50, 1.0));
    let search = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let index = Index::build(&references, 50, &with(Candidates::Int8)).unwrap();
            index.search(&queries, 6).unwrap()
        })
    };
    let one = search(1);
    assert_eq!(one, search(2));
    assert_eq!(one, search(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_small_shape_equals_brute_force(
        seed in 0u64..1 << 40,
        (n, q, dim) in (1usize..120, 0usize..20, 1usize..90),
        k in 1usize..12,
        grid in prop::bool::ANY,
        sparse in prop::bool::ANY,
    ) {
        let draw = |name, n: usize| -> Vec<f32> {
            let t = deepsim_nets::init::normal(name, &[n as i64, dim as i64], 2.0, seed).unwrap();
            let x = if n == 0 { Vec::new() } else { rows(&t).unwrap().0 };
            x.into_iter().map(|v| {
                // Whole numbers make ties; zeros make what comes after a ReLU.
                let v = if grid { v.round() } else { v };
                if sparse { v.max(0.0).powi(3) } else { v }
            }).collect()
        };
        assert_exact(&draw("r", n), &draw("q", q), dim, k);
    }
}

//! References that pass by block by block.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn files_stream_as_memory_does() {
    let (references, queries) = (noise("r", 500, 12, 1.0), noise("q", 8, 12, 1.0));
    let settings = Settings::default();
    let want = Index::build(&references, 12, &settings)
        .unwrap()
        .search(&queries, 3)
        .unwrap();
    let raw: Vec<u8> = references.iter().flat_map(|v| v.to_le_bytes()).collect();
    let head = "{'descr': '<f4', 'fortran_order': False, 'shape': (500, 3, 4), }\n";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((head.len() as u16).to_le_bytes());
    npy.extend(head.as_bytes());
    npy.extend(&raw);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![500, 12], &raw);
    let shard = safetensors::serialize([("features", view.unwrap())], None).unwrap();
    let shard = safetensors::SafeTensors::deserialize(&shard).unwrap();
    let tensor = shard.tensor("features").unwrap();
    let readers = [
        RowReader::raw(&raw[..], 12, 77),
        RowReader::npy(&npy[..], 500).unwrap(),
        RowReader::raw(tensor.data(), 12, 1000),
    ];
    for reader in readers {
        assert_eq!(reader.dim(), 12);
        let mut searcher = Searcher::new(&queries, 12, 3, &settings).unwrap();
        searcher.add_all(reader).unwrap();
        assert_eq!(pairs(&searcher.finish().unwrap()), pairs(&want));
    }
    let cut: Vec<_> = RowReader::raw(&raw[..raw.len() - 3], 12, 400).collect();
    assert_eq!(
        (cut.len(), cut[0].is_ok(), cut[1].is_err()),
        (2, true, true)
    );
    assert!(RowReader::raw(&raw[..], 12, 0).next().unwrap().is_err());
    for (from, to) in [
        ("<f4", "<f8"),
        ("False", "True"),
        ("(500, 3, 4)", "(500,)"),
        ("\x00v", ""),
    ] {
        let text = head.replace(from, to);
        let mut bad = b"\x93NUMPY\x01\x00".to_vec();
        bad.extend((text.len() as u16).to_le_bytes());
        bad.extend(text.as_bytes());
        assert_eq!(RowReader::npy(&bad[..], 5).is_err(), text != head, "{text}");
    }
    assert!(RowReader::npy(&raw[..], 5).is_err());
}

/// Endless blocks of two rows, the `bad`-th of which is what `make` says.
fn endless<'a>(
    bad: usize,
    fetched: &'a AtomicUsize,
    make: impl Fn() -> Result<Vec<f32>> + Send + 'a,
) -> impl Iterator<Item = Result<Vec<f32>>> + Send + 'a {
    std::iter::repeat_with(move || match fetched.fetch_add(1, Ordering::SeqCst) {
        i if i == bad => make(),
        _ => Ok(vec![1.0; 6]),
    })
}

#[test]
fn errors_end_the_fetching_of_blocks() {
    let queries = noise("q", 4, 3, 1.0);
    let settings = Settings::default();
    let fetched = AtomicUsize::new(0);
    let run = |blocks| {
        let mut searcher = Searcher::new(&queries, 3, 2, &settings).unwrap();
        let done = searcher.add_all(blocks).map_err(|e| e.to_string());
        (done, searcher.finish())
    };
    // A block that cannot be read: it is the last one asked for.
    let unreadable = || Err(SearchError::Rows(std::io::Error::other("the disk is gone")));
    let (done, found) = run(endless(5, &fetched, unreadable));
    assert!(done.unwrap_err().contains("the disk is gone"));
    assert_eq!(fetched.load(Ordering::SeqCst), 6);
    // What passed before it was searched.
    assert_eq!(found.unwrap().indices(0), [0, 1]);

    // A block that is refused: at most the one being fetched follows.
    for (bad, why) in [
        (vec![f32::NAN; 3], "row 8 holds NaN"),
        (vec![1.0; 4], "no whole number of rows"),
    ] {
        fetched.store(0, Ordering::SeqCst);
        let mut searcher = Searcher::new(&queries, 3, 2, &settings).unwrap();
        let blocks = endless(4, &fetched, || Ok(bad.clone()));
        let error = searcher.add_all(blocks).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(fetched.load(Ordering::SeqCst) <= 6);
    }

    // A panic of the caller's iterator is passed on as it is.
    fetched.store(0, Ordering::SeqCst);
    let mut searcher = Searcher::new(&queries, 3, 2, &settings).unwrap();
    let blocks = endless(2, &fetched, || panic!("not my fault"));
    let all = std::panic::AssertUnwindSafe(|| searcher.add_all(blocks));
    let panic = std::panic::catch_unwind(all).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"not my fault"));
}

#[test]
fn blocks_are_read_while_all_of_rayon_waits_for_them() {
    let (references, queries) = (noise("r", 90, 6, 1.0), noise("q", 2, 6, 1.0));
    let want = brute(&references, &queries, 6, 3);
    let raw: Vec<u8> = references.iter().flat_map(|v| v.to_le_bytes()).collect();
    // On every thread of the pool at once: whoever reads blocks must not need one of them.
    let found = rayon::broadcast(|_| {
        let mut searcher = Searcher::new(&queries, 6, 3, &Settings::default())?;
        searcher.add_all(RowReader::raw(&raw[..], 6, 7))?;
        searcher.finish()
    });
    for found in found {
        assert_eq!(pairs(&found.unwrap()), want);
    }
}

#[test]
fn estimates_scale() {
    let rates = Rates {
        operations: 6e11,
        coded: 6e8,
        read: 1e9,
    };
    let settings = Settings::default();
    let e = estimate(1_280_000, 9216, 1000, 10_000, &rates, &settings);
    assert_eq!(e.bytes, 4 * 1_280_000 * 9216);
    assert!((e.search - 2.0 * 1.28e9 * 9216.0 / 6e11).abs() < 1e-6);
    assert_eq!(e.seconds(), e.coding + e.search);
    assert!(e.memory < 2 << 30);
}

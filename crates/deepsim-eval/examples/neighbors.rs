//! Times exact nearest neighbours on raw f32 rows, and estimates a search of ILSVRC-2012:
//! `neighbors REFERENCES QUERIES DIM [K] [auto|bf16|int8|fp32] [REPEATS] [block rows to stream] [TILE]`.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use deepsim_eval::search::{Candidates, Index, Rates, RowReader, Searcher, Settings, estimate};

/// What the estimate is for: pool5 features of ILSVRC-2012's training images.
const IMAGES: u64 = 1_280_000;
const FEATURES: u64 = 9216;
const QUERIES: u64 = 1000;
const BLOCK: u64 = 8192;

fn read(path: &str, dim: usize) -> Result<Vec<f32>> {
    let file = File::open(path).with_context(|| path.to_owned())?;
    let rows = (file.metadata()?.len() as usize / 4 / dim).max(1);
    let mut blocks = RowReader::raw(file, dim, rows);
    Ok(blocks.next().context("an empty file")??)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, otherwise: &str| {
        args.get(i)
            .map_or_else(|| otherwise.to_owned(), Clone::clone)
    };
    let (path, dim) = (arg(0, ""), arg(2, "").parse().context("DIM")?);
    let queries = read(&arg(1, ""), dim)?;
    let k = arg(3, "5").parse().context("K")?;
    let candidates = match arg(4, "auto").as_str() {
        "auto" => Candidates::Auto,
        "bf16" => Candidates::Bf16,
        "int8" => Candidates::Int8,
        "fp32" => Candidates::Fp32,
        other => bail!("no candidates called {other}"),
    };
    let settings = Settings {
        candidates,
        tile: arg(7, "4096").parse().context("TILE")?,
        ..Settings::default()
    };
    let repeats: usize = arg(5, "3").parse().context("REPEATS")?;
    let block: usize = arg(6, "0").parse().context("block rows")?;
    if block > 0 {
        let start = Instant::now();
        let mut searcher = Searcher::new(&queries, dim, k, &settings)?;
        let file = BufReader::with_capacity(1 << 22, File::open(&path)?);
        searcher.add_all(RowReader::raw(file, dim, block))?;
        let found = searcher.finish()?;
        println!("streamed {:.3} s", start.elapsed().as_secs_f64());
        println!("{}", found.stats);
        println!("first: {:?} {:?}", found.indices(0), found.squared(0));
        return Ok(());
    }
    let start = Instant::now();
    let references = read(&path, dim)?;
    let reading = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let index = Index::build(&references, dim, &settings)?;
    let coding = start.elapsed().as_secs_f64();
    println!("read {reading:.3} s, build {coding:.3} s");
    let mut searching = f64::INFINITY;
    for _ in 0..repeats {
        let start = Instant::now();
        let found = index.search(&queries, k)?;
        let searched = start.elapsed().as_secs_f64();
        searching = searching.min(searched);
        println!("search {searched:.3} s; {}", found.stats);
        println!("first: {:?} {:?}", found.indices(0), found.squared(0));
    }
    let (values, count) = (references.len() as f64, (queries.len() / dim) as f64);
    let rates = Rates {
        operations: 2.0 * values * count / searching,
        coded: values / coding,
        read: 4.0 * values / reading,
    };
    let e = estimate(IMAGES, FEATURES, QUERIES, BLOCK, &rates, &settings);
    println!(
        "at these rates {IMAGES} x {FEATURES} streamed past {QUERIES} queries take {:.0} s \
         (reading {:.1} GB {:.0} s; coding {:.0} s, then searching {:.0} s) and {:.1} GB of memory",
        e.seconds(),
        e.bytes as f64 / 1e9,
        e.read,
        e.coding,
        e.search,
        e.memory as f64 / 1e9
    );
    Ok(())
}

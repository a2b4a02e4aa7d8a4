//! Times exact nearest neighbours on raw f32 rows:
//! `neighbors REFERENCES QUERIES DIM [K] [auto|bf16|int8|fp32] [REPEATS] [block rows to stream]`.

use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use deepsim_nets::neighbors::{Candidates, Index, RowReader, Searcher, Settings};

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
        return Ok(());
    }
    let references = read(&path, dim)?;
    let start = Instant::now();
    let index = Index::build(&references, dim, &settings)?;
    println!("build {:.3} s", start.elapsed().as_secs_f64());
    for _ in 0..repeats {
        let start = Instant::now();
        let found = index.search(&queries, k)?;
        let searched = start.elapsed().as_secs_f64();
        println!("search {searched:.3} s; {}", found.stats);
        println!("first: {:?} {:?}", found.indices(0), found.squared(0));
    }
    Ok(())
}

//! Times what processes exchange while they train together: `exchange PROCESSES REPETITIONS` starts so
//! many on this machine and prints the seconds of every repetition as JSON. `cargo xtask dist` makes a
//! table of them.

use std::error::Error;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use deepsim_aten::{AtenError, ProcessGroup, Rendezvous};
use tch::{Device, Kind, Tensor};

/// Elements of 4 bytes: 1 MB.
const MEGABYTE: i64 = 250_000;
const TIMEOUT: Duration = Duration::from_secs(120);
const USAGE: &str = "give two numbers: processes and repetitions";

/// Seconds of every repetition of each work, by its name.
type Times = Vec<(&'static str, Vec<f64>)>;
type Work = Box<dyn Fn(&ProcessGroup) -> Result<(), AtenError>>;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|word| word.parse::<i64>());
    match *numbers.collect::<Result<Vec<_>, _>>()?.as_slice() {
        [size, repetitions] => lead(size, repetitions),
        // How `lead` starts the others.
        [size, repetitions, rank, port] => {
            measure(size, repetitions, rank, u16::try_from(port)?).map(drop)
        }
        _ => Err(USAGE.into()),
    }
}

fn lead(size: i64, repetitions: i64) -> Result<(), Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = std::env::current_exe()?;
    let others = (1..size).map(|rank| {
        let words = [size, repetitions, rank, i64::from(port)].map(|n| n.to_string());
        Command::new(&program).args(words).spawn()
    });
    let others = others.collect::<Result<Vec<Child>, _>>()?;
    let measured = measure(size, repetitions, 0, port);
    for mut other in others {
        other.wait()?;
    }
    let times: Vec<String> = measured?
        .iter()
        .map(|(name, seconds)| format!("{name:?}: {seconds:?}"))
        .collect();
    println!("{{{}}}", times.join(", "));
    Ok(())
}

/// Seconds of every repetition of each work, by its name.
fn measure(size: i64, repetitions: i64, rank: i64, port: u16) -> Result<Times, Box<dyn Error>> {
    let at = Rendezvous {
        host: "127.0.0.1".to_owned(),
        port,
        rank,
        size,
        serves: rank == 0,
        prefix: "exchange".to_owned(),
    };
    let group = ProcessGroup::join(&at, TIMEOUT)?;
    // Zeros: their sums stay finite, however often they are taken.
    let zeros = |elements: i64| Tensor::zeros([elements], (Kind::Float, Device::Cpu));
    let flat = zeros(50 * MEGABYTE);
    let many: Vec<Tensor> = (0..50).map(|_| zeros(MEGABYTE)).collect();
    let works: [(&'static str, Work); 3] = [
        ("one_tensor", Box::new(move |group| group.all_reduce(&flat))),
        (
            "fifty_tensors",
            Box::new(move |group| many.iter().try_for_each(|t| group.all_reduce(t))),
        ),
        ("barrier", Box::new(ProcessGroup::barrier)),
    ];
    let mut measured = Vec::new();
    for (name, work) in &works {
        work(&group)?;
        let mut seconds = Vec::new();
        for _ in 0..repetitions {
            group.barrier()?;
            let begun = Instant::now();
            work(&group)?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        measured.push((*name, seconds));
    }
    Ok(measured)
}

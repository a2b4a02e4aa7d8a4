//! Times what processes exchange while they train together: `exchange PROCESSES REPETITIONS` starts so
//! many on this machine and prints the seconds of every repetition as JSON. `cargo xtask dist` makes a
//! table of them.

use std::error::Error;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};

use deepsim_aten::{AtenError, BUCKET_BYTES, Buckets, Layout, ProcessGroup, Rendezvous};
use tch::{Device, Kind, TchError, Tensor};

/// Elements of 4 bytes: 1 MB.
const MEGABYTE: i64 = 250_000;
const TIMEOUT: Duration = Duration::from_secs(120);
const USAGE: &str = "give two numbers: processes and repetitions";

/// By name: whether a work needs a loss, and the work.
type Works = Vec<(&'static str, bool, Work)>;
/// Seconds of every repetition of each work, by its name.
type Times = Vec<(&'static str, Vec<f64>)>;
/// What is timed. Some are given a loss, whose forward pass is not timed.
type Work = Box<dyn Fn(&ProcessGroup, Option<Tensor>) -> Result<(), Box<dyn Error>>>;

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
    // The processes share the machine's cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processes = usize::try_from(size)?;
    tch::set_num_threads(i32::try_from(cores / processes)?.max(1));
    let network = Network::new()?;
    let mut measured = Vec::new();
    for (name, has_loss, work) in works(&network)? {
        let loss = || has_loss.then(|| network.loss()).transpose();
        work(&group, loss()?)?;
        let mut seconds = Vec::new();
        for _ in 0..repetitions {
            let loss = loss()?;
            group.barrier()?;
            let begun = Instant::now();
            work(&group, loss)?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        measured.push((name, seconds));
    }
    Ok(measured)
}

/// What is timed, in this order.
fn works(network: &Network) -> Result<Works, Box<dyn Error>> {
    // Zeros: their sums stay finite, however often they are taken.
    let zeros = |elements: i64| Tensor::zeros([elements], (Kind::Float, Device::Cpu));
    let flat = zeros(50 * MEGABYTE);
    let many: Vec<Tensor> = (0..50).map(|_| zeros(MEGABYTE)).collect();
    let exact = Rc::new(network.buckets(Kind::Float)?);
    let rounded = network.buckets(Kind::BFloat16)?;
    let (after, along) = (Rc::clone(&exact), Rc::clone(&exact));
    let (alone, then, beside) = (network.handles(), network.handles(), network.handles());
    Ok(vec![
        (
            "one_tensor",
            false,
            work(move |group, _| Ok(group.all_reduce(&flat)?)),
        ),
        (
            "fifty_tensors",
            false,
            work(move |group, _| Ok(many.iter().try_for_each(|t| group.all_reduce(t))?)),
        ),
        (
            "flat_buckets_async",
            false,
            work(move |group, _| Ok(summed(group, &exact)?)),
        ),
        (
            "flat_buckets_bf16",
            false,
            work(move |group, _| Ok(summed(group, &rounded)?)),
        ),
        (
            "backward_alone",
            true,
            work(move |_, loss| backward(loss, &alone).map(drop)),
        ),
        (
            "backward_then_reduce",
            true,
            work(move |group, loss| {
                after.take(&backward(loss, &then)?)?;
                Ok(summed(group, &after)?)
            }),
        ),
        (
            "backward_overlapped",
            true,
            work(move |group, loss| {
                let weights: Vec<&Tensor> = beside.iter().collect();
                let loss = loss.ok_or("no loss")?;
                along.backward(group, &loss, &weights, false)?.wait()?;
                Ok(along.take_back()?)
            }),
        ),
        ("barrier", false, work(|group, _| Ok(group.barrier()?))),
    ])
}

fn work(
    work: impl Fn(&ProcessGroup, Option<Tensor>) -> Result<(), Box<dyn Error>> + 'static,
) -> Work {
    Box::new(work)
}

/// Sums what lies in the buckets.
fn summed(group: &ProcessGroup, buckets: &Buckets) -> Result<(), AtenError> {
    let all: Vec<&Tensor> = buckets.to_send()?.iter().collect();
    group.all_reduce_start(&all)?.wait()?;
    buckets.take_back()
}

fn backward(loss: Option<Tensor>, weights: &[Tensor]) -> Result<Vec<Tensor>, Box<dyn Error>> {
    let loss = loss.ok_or("no loss")?;
    Ok(Tensor::f_run_backward(&[loss], weights, false, false)?)
}

/// Eight convolutions of 256 channels and two fully connected layers: 12.5 million weights, 50 MB.
struct Network {
    x: Tensor,
    convolutions: Vec<[Tensor; 2]>,
    linear: Vec<[Tensor; 2]>,
}

impl Network {
    const CHANNELS: i64 = 256;

    fn new() -> Result<Network, TchError> {
        let on_cpu = (Kind::Float, Device::Cpu);
        let weight = |shape: &[i64], scale: f64| -> Result<Tensor, TchError> {
            let drawn = Tensor::f_randn(shape, on_cpu)?.f_mul_scalar(scale)?;
            drawn.f_set_requires_grad(true)
        };
        let c = Network::CHANNELS;
        let convolution = |_| -> Result<[Tensor; 2], TchError> {
            Ok([weight(&[c, c, 3, 3], 0.03)?, weight(&[c], 0.03)?])
        };
        let layer = |from: i64, to: i64| -> Result<[Tensor; 2], TchError> {
            Ok([weight(&[to, from], 0.02)?, weight(&[to], 0.02)?])
        };
        Ok(Network {
            x: Tensor::f_randn([4, c, 16, 16], on_cpu)?,
            convolutions: (0..8).map(convolution).collect::<Result<_, _>>()?,
            linear: vec![layer(16 * c, 1408)?, layer(1408, 1408)?],
        })
    }

    fn layers(&self) -> impl Iterator<Item = &Tensor> {
        self.convolutions.iter().chain(&self.linear).flatten()
    }

    fn handles(&self) -> Vec<Tensor> {
        self.layers().map(Tensor::shallow_clone).collect()
    }

    fn buckets(&self, sent: Kind) -> Result<Buckets, AtenError> {
        Buckets::new(Layout {
            shapes: self.layers().map(Tensor::size).collect(),
            kind: Kind::Float,
            sent,
            device: Device::Cpu,
            bucket_bytes: BUCKET_BYTES,
        })
    }

    fn loss(&self) -> Result<Tensor, TchError> {
        let mut x = self.x.shallow_clone();
        for [weight, bias] in &self.convolutions {
            x = x.f_conv2d(weight, Some(bias), [1, 1], [1, 1], [1, 1], 1)?;
            x = x.f_relu()?;
        }
        x = x.f_adaptive_avg_pool2d([4, 4])?.f_flatten(1, -1)?;
        for [weight, bias] in &self.linear {
            x = x.f_linear(weight, Some(bias))?.f_relu()?;
        }
        x.f_mean(Kind::Float)
    }
}

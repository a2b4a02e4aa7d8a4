//! Groups of processes, of real ones: every test starts this test program again, once for each rank.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Display;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use deepsim_aten::{AtenError, GroupError, ProcessGroup, Rendezvous};
use tch::{Device, Kind, Tensor};

// Beside this file it would be a test program of its own.
#[path = "group/works.rs"]
mod works;

/// For what must succeed on a busy machine with a slow name server.
const PATIENT: u64 = 60_000;
/// What must fail does so this much after its timeout at the latest.
const SLACK: Duration = Duration::from_secs(1);

const TASK: &str = "DEEPSIM_TEST_GROUP";

/// A rank in a process of its own.
struct Rank {
    process: Child,
    lines: Receiver<String>,
}

impl Rank {
    /// Starts `task` (see [`child`]).
    fn start(task: &str, port: u16, rank: i64, size: i64, timeout_ms: u64) -> Rank {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(TASK, format!("{task} {port} {rank} {size} {timeout_ms}"))
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // libtest's own line may stand before the first one.
                if let Some((_, said)) = line.split_once("child: ") {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Rank { process, lines }
    }

    /// The next line that it says.
    fn says(&self) -> String {
        self.lines
            .recv_timeout(Duration::from_millis(2 * PATIENT))
            .unwrap()
    }

    /// What it still says; it must end by itself and without a failure.
    fn ends(mut self) -> Vec<String> {
        let mut said = Vec::new();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_millis(2 * PATIENT));
            std::thread::sleep(Duration::from_millis(10));
        };
        while let Ok(line) = self.lines.recv() {
            said.push(line);
        }
        assert!(status.success(), "{status}: {said:?}");
        said
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that is free now.
fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn start_all(task: &str, size: i64, timeout_ms: u64) -> Vec<Rank> {
    let port = free_port();
    (0..size)
        .map(|rank| Rank::start(task, port, rank, size, timeout_ms))
        .collect()
}

/// What every rank says that does `task`.
fn said_by_all(task: &str, size: i64, timeout_ms: u64) -> Vec<Vec<String>> {
    let ranks = start_all(task, size, timeout_ms);
    ranks.into_iter().map(Rank::ends).collect()
}

fn at(port: u16, rank: i64, size: i64) -> Rendezvous {
    Rendezvous {
        host: "127.0.0.1".to_owned(),
        port,
        rank,
        size,
        serves: rank == 0,
        prefix: "test".to_owned(),
    }
}

fn say(what: impl Display) {
    println!("child: {what}");
}

/// `kind: values`, or why there are none.
fn say_values(tensor: &Tensor, done: Result<(), AtenError>) {
    match done {
        Ok(()) => {
            let values = Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).unwrap();
            say(format_args!("{:?} {values:?}", tensor.kind()));
        }
        Err(error) => say(error),
    }
}

/// The same for what is to fail; with the time that it took.
fn say_failure<T: std::fmt::Debug>(begun: Instant, done: Result<T, AtenError>) {
    say(format_args!(
        "{} {}",
        begun.elapsed().as_millis(),
        done.unwrap_err()
    ));
}

/// Time and text of a line of [`say_failure`].
fn failure(line: &str) -> (Duration, &str) {
    let (time, text) = line.split_once(' ').unwrap();
    (Duration::from_millis(time.parse().unwrap()), text)
}

/// Run by the tests below in a process of its own, as the variable says.
#[test]
#[ignore = "it is the process that the tests beside it start"]
fn child() {
    let text = std::env::var(TASK).unwrap();
    let words: Vec<&str> = text.split(' ').collect();
    let number = |i: usize| words[i].parse::<i64>().unwrap();
    let (task, port, rank, size) = (words[0], number(1) as u16, number(2), number(3));
    let timeout = Duration::from_millis(number(4) as u64);
    let begun = Instant::now();
    let joined = ProcessGroup::join(&at(port, rank, size), timeout);
    if task == "join" {
        return say_failure(begun, joined);
    }
    let group = joined.unwrap();
    assert_eq!((group.rank(), group.size()), (rank, size));
    match task {
        "values" => values(&group),
        "bits" => bits(&group),
        "differ" => differ(&group),
        "buckets" => works::bucket_sums(&group),
        "overlapped" => works::overlapped(&group),
        "dies" => works::dies(&group),
        "lost" => {
            group.barrier().unwrap();
            say("inside");
            if rank == 1 {
                std::thread::sleep(Duration::from_millis(2 * PATIENT));
            }
            let tensor = Tensor::ones([1 << 20], (Kind::Float, Device::Cpu));
            let begun = Instant::now();
            say_failure(begun, group.all_reduce(&tensor));
            // The group is of no more use, and says so.
            assert!(group.barrier().is_err());
        }
        _ => panic!("{task}"),
    }
    drop(group);
    say("left");
}

fn values(group: &ProcessGroup) {
    let rank = group.rank();
    for kind in [Kind::Float, Kind::Double, Kind::Int64, Kind::BFloat16] {
        let tensor = Tensor::arange(3, (kind, Device::Cpu)) + 10 * rank;
        let done = group.all_reduce(&tensor);
        say_values(&tensor, done);
    }
    for kind in [Kind::Float, Kind::Int64] {
        let tensor = Tensor::from_slice(&[rank, -rank]).to_kind(kind);
        let done = group.all_reduce_max(&tensor);
        say_values(&tensor, done);
    }
    let tensor = Tensor::from_slice(&[rank, 7 * rank]);
    let done = group.broadcast(&tensor, group.size() - 1);
    say_values(&tensor, done);
    let none = Tensor::zeros([0], (Kind::Float, Device::Cpu));
    let done = group.all_reduce(&none);
    say_values(&none, done);
    group.barrier().unwrap();
}

fn bits(group: &ProcessGroup) {
    tch::manual_seed(group.rank());
    for elements in [1, 7, 1000, 1_000_003] {
        let wide = Tensor::randn([elements], (Kind::Float, Device::Cpu));
        for kind in [Kind::Float, Kind::BFloat16] {
            let tensor = wide.to_kind(kind);
            group.all_reduce(&tensor).unwrap();
            let mut hash = DefaultHasher::new();
            for value in Vec::<f32>::try_from(tensor.to_kind(Kind::Float)).unwrap() {
                hash.write_u32(value.to_bits());
            }
            say(format_args!("{elements} {kind:?} {:x}", hash.finish()));
        }
    }
}

/// Tensors that differ between the processes, and such as none takes; the group goes on each time.
fn differ(group: &ProcessGroup) {
    let (rank, float) = (group.rank(), (Kind::Float, Device::Cpu));
    let tensor = Tensor::ones([1000 * (rank + 1)], float);
    let done = group.all_reduce(&tensor);
    say_values(&tensor, done);
    let kind = if rank == 0 { Kind::Float } else { Kind::Double };
    let tensor = Tensor::ones([2], (kind, Device::Cpu));
    let done = group.broadcast(&tensor, 0);
    say_values(&tensor, done);
    let tensor = Tensor::ones([2], float);
    let done = match rank {
        0 => group.all_reduce(&tensor),
        _ => group.all_reduce_max(&tensor),
    };
    say_values(&tensor, done);
    let columns = Tensor::ones([2, 3], float).transpose(0, 1);
    let done = group.all_reduce(&columns);
    say_values(&columns, done);
    let half = Tensor::ones([2], (Kind::Half, Device::Cpu));
    let done = group.all_reduce(&half);
    say_values(&half, done);
    let done = group.broadcast(&tensor, 2);
    say_values(&tensor, done);
    let done = group.all_reduce(&tensor);
    say_values(&tensor, done);
}

#[test]
fn tensors_are_summed_compared_and_copied_by_value() {
    for size in [2, 4] {
        let ranks: i64 = (0..size).sum();
        let sum = |i: i64| (10 * ranks + size * i) as f64;
        let sums = [sum(0), sum(1), sum(2)];
        let last = size - 1;
        let expected = [
            format!("Float {sums:?}"),
            format!("Double {sums:?}"),
            format!("Int64 {sums:?}"),
            format!("BFloat16 {sums:?}"),
            format!("Float {:?}", [last as f64, 0.0]),
            format!("Int64 {:?}", [last as f64, 0.0]),
            format!("Int64 {:?}", [last as f64, 7.0 * last as f64]),
            "Float []".to_owned(),
            "left".to_owned(),
        ];
        for said in said_by_all("values", size, PATIENT) {
            assert_eq!(said, expected, "{size}");
        }
    }
}

#[test]
fn sums_have_the_same_bits_in_all_processes() {
    for size in [2, 4] {
        let all = said_by_all("bits", size, PATIENT);
        assert_eq!(all[0].len(), 9);
        for said in &all {
            assert_eq!(*said, all[0], "{size}");
        }
    }
}

#[test]
fn different_tensors_and_unsuited_ones_are_errors_that_a_group_survives() {
    let disagree = "the processes disagree: ";
    for (rank, said) in said_by_all("differ", 2, PATIENT).into_iter().enumerate() {
        let pick = |zero: &str, one: &str| {
            let text = if rank == 0 { zero } else { one };
            format!("{disagree}{text}")
        };
        assert_eq!(
            said,
            [
                pick(
                    "elements 1000 here, 2000 in another process",
                    "elements 2000 here, 1000 in another process"
                ),
                pick(
                    "type Float here, Double in another process",
                    "type Double here, Float in another process"
                ),
                pick(
                    "operation sum here, maximum in another process",
                    "operation maximum here, sum in another process"
                ),
                "a reduction needs a contiguous tensor".to_owned(),
                "a reduction needs a tensor of f32, f64, bf16 or i64, not of Half".to_owned(),
                "root 2: it must be a rank, from 0 and below 2".to_owned(),
                "Float [2.0, 2.0]".to_owned(),
                "left".to_owned(),
            ]
        );
    }
}

#[test]
fn a_process_that_never_comes_is_named_in_time() {
    let timeout = Duration::from_secs(2);
    let port = free_port();
    let begun = Instant::now();
    let error = ProcessGroup::join(&at(port, 0, 2), timeout).unwrap_err();
    assert!(begun.elapsed() < timeout + SLACK, "{:?}", begun.elapsed());
    assert_eq!(error.to_string(), "rank 1 did not come in time");
    // One of three: both others say so, and end.
    let port = free_port();
    let start = |rank| Rank::start("join", port, rank, 3, 2000);
    for rank in [start(0), start(2)] {
        let said = rank.ends();
        let (time, text) = failure(&said[0]);
        assert!(time < timeout + SLACK, "{time:?}");
        assert_eq!(text, "rank 1 did not come in time");
    }
}

#[test]
fn a_killed_process_fails_the_others_calls_and_not_their_ends() {
    let mut ranks = start_all("lost", 2, PATIENT);
    let mut second = ranks.pop().unwrap();
    let first = ranks.pop().unwrap();
    assert_eq!(
        (first.says(), second.says()),
        ("inside".into(), "inside".into())
    );
    // Meanwhile the first one waits inside of its call.
    std::thread::sleep(Duration::from_millis(200));
    second.process.kill().unwrap();
    let said = first.ends();
    let (time, text) = failure(&said[0]);
    assert!(time < Duration::from_millis(200) + SLACK, "{time:?}");
    let expected = "a process has ended: ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(said[1], "left");
}

#[test]
fn a_process_that_hangs_fails_the_others_calls_in_time() {
    let timeout = 5000;
    let mut ranks = start_all("lost", 2, timeout);
    let _hangs = ranks.pop().unwrap();
    let first = ranks.pop().unwrap();
    assert_eq!(first.says(), "inside");
    let said = first.ends();
    let (time, text) = failure(&said[0]);
    assert!(time < Duration::from_millis(timeout) + SLACK, "{time:?}");
    let expected = "a process does not answer: ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(said[1], "left");
}

#[test]
fn ports_of_other_programs_are_told() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let timeout = Duration::from_secs(2);
    let error = ProcessGroup::join(&at(port, 0, 2), timeout).unwrap_err();
    assert!(matches!(error, AtenError::Group(GroupError::PortInUse(p)) if p == port));
    // It accepts connections and never answers.
    let unreachable = |port: u16, words: &str| {
        let begun = Instant::now();
        let error = ProcessGroup::join(&at(port, 1, 2), timeout).unwrap_err();
        assert!(begun.elapsed() < timeout + SLACK, "{:?}", begun.elapsed());
        assert_eq!(error.to_string(), format!("no store there: {words}"));
    };
    unreachable(
        port,
        "what listens there does not answer as PyTorch's store",
    );
    unreachable(free_port(), "Connection refused");
    // Its end would make c10d tell of the connection that was left behind.
    std::mem::forget(other);
}

#[test]
fn groups_of_other_sizes_and_ranks_that_are_there_twice_are_told() {
    for ranks in [[(0, 2), (1, 3)], [(0, 3), (1, 2)]] {
        let port = free_port();
        let all = ranks.map(|(rank, size)| Rank::start("join", port, rank, size, PATIENT));
        for rank in all {
            let said = rank.ends();
            let text = failure(&said[0]).1;
            assert!(text.contains("processes, another of"), "{text}");
        }
    }
    let port = free_port();
    let all = [0, 1, 1].map(|rank| Rank::start("join", port, rank, 3, PATIENT));
    for rank in all {
        let said = rank.ends();
        let text = failure(&said[0]).1;
        assert!(text.contains("rank 1 is there twice"), "{text}");
    }
}

#[test]
fn values_that_no_group_can_have_are_refused() {
    let refused = |rendezvous: &Rendezvous, words: &str| {
        let error = ProcessGroup::join(rendezvous, Duration::from_secs(2)).unwrap_err();
        assert!(matches!(error, AtenError::Group(GroupError::Refused(_))));
        assert!(error.to_string().contains(words), "{error}");
    };
    for (rank, size) in [(2, 2), (-1, 2), (0, 0), (0, 1 << 40)] {
        refused(&at(29500, rank, size), "ranks are from 0");
    }
    refused(&at(0, 0, 2), "port 0");
    for text in ["", "a\0b"] {
        let text = text.to_owned();
        let host = Rendezvous {
            host: text.clone(),
            ..at(29500, 0, 2)
        };
        refused(&host, "host");
        let prefix = Rendezvous {
            prefix: text,
            ..at(29500, 0, 2)
        };
        refused(&prefix, "prefix");
    }
}

#[test]
fn one_process_is_a_group_and_a_group_goes_to_another_thread() {
    let group = ProcessGroup::join(&at(free_port(), 0, 1), Duration::from_millis(PATIENT)).unwrap();
    let sum = std::thread::spawn(move || {
        let tensor = Tensor::from_slice(&[3i64]);
        group.all_reduce(&tensor).unwrap();
        group.barrier().unwrap();
        tensor.int64_value(&[0])
    });
    assert_eq!(sum.join().unwrap(), 3);
}

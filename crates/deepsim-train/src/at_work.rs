//! Signs of life of a process whose work may take long while others wait for it: it opens its inputs, or it is rank 0 and saves
//! or evaluates.
//!
//! The others wait in an exchange. A thread takes part in it, again and again, in the place of the one that works, and says
//! that the work is not done; the others then wait in the next one. So an exchange is late only where a process does not
//! answer at all, and `train.patience` need not be as long as an evaluation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use deepsim_experiment::{exchange, interrupt};
use deepsim_nets::ProcessGroup;

use crate::error::{Result, TrainError};

/// What a process says of the training before its first step; what the worst of all says holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ready {
    /// To begin.
    Yes = 0,
    /// All steps are done already.
    Finished = 1,
    /// It cannot begin.
    No = 2,
}

/// Where the others wait meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// In [`ready`].
    ToBegin,
    /// In [`verdict`]: it is rank 0 that works.
    ForVerdict,
}

/// What ends the waiting before the work is done.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A process that cannot begin.
    Refusal,
    /// One that is gone or does not answer.
    Failure(TrainError),
}

/// A verdict of rank 0 that is none: it is at work. All others are from 0 on.
const AT_WORK: i64 = -1;

/// Signs of life within the time after which a process is given up.
const SIGNS: u32 = 8;
/// The longest time between two of them.
const LONGEST: Duration = Duration::from_secs(5);

/// One exchange of all processes before the first step: what this one says, or none while it is at work. Whether all have
/// said something, and the worst of it.
///
/// # Errors
/// A process that does not answer in time, or is gone.
pub(crate) fn ready(group: &ProcessGroup, own: Option<Ready>) -> Result<(bool, Ready)> {
    let said = own.unwrap_or(Ready::Yes);
    let [at_work, worst] = exchange::largest(group, [i64::from(own.is_none()), said as i64])?;
    let worst = match worst {
        0 => Ready::Yes,
        1 => Ready::Finished,
        _ => Ready::No,
    };
    Ok((at_work == 0, worst))
}

/// Rank 0's verdict, a number from 0 on, in all processes; the others give anything.
///
/// # Errors
/// A process that does not answer in time, or is gone.
pub(crate) fn verdict(group: &ProcessGroup, own: i64) -> Result<i64> {
    loop {
        match exchange::number_of(group, 0, own)? {
            AT_WORK => {}
            code => return Ok(code),
        }
    }
}

/// The thread that gives signs of life, while there is work.
#[derive(Debug)]
pub(crate) struct AtWork {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    group: Arc<ProcessGroup>,
    every: Duration,
    /// Held in each exchange of the thread: the work that ends waits for it.
    work: Mutex<Work>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// Where the others wait, and since when.
    waiting: Option<(Waiting, Instant)>,
    heard: Option<Heard>,
    /// Whether the thread is to end.
    over: bool,
}

impl AtWork {
    /// Starts the thread; there is no work yet. Others give this process up after `patience`.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(crate) fn new(group: Arc<ProcessGroup>, patience: Duration) -> std::io::Result<AtWork> {
        let shared = Arc::new(Shared {
            group,
            every: (patience / SIGNS).min(LONGEST),
            work: Mutex::default(),
            told: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("signs of life".to_owned())
            .spawn(move || own.run())?;
        Ok(AtWork {
            shared,
            thread: Some(thread),
        })
    }

    /// The work begins: until [`AtWork::end`] the caller leaves the group alone.
    pub(crate) fn begin(&self, waiting: Waiting) {
        let mut work = self.shared.work();
        work.waiting = Some((waiting, Instant::now()));
        work.heard = None;
    }

    /// The work is done, and the caller goes where the others wait, unless something was heard: then nobody waits there.
    pub(crate) fn end(&self) -> Option<Heard> {
        let mut work = self.shared.work();
        work.waiting = None;
        work.heard.take()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.shared.work().over = true;
        self.shared.told.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut work = self.work();
        while !work.over {
            let waited = self.told.wait_timeout(work, self.every);
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some((waiting, since)) = work.waiting else {
                continue;
            };
            // Most work is done long before.
            if work.over || since.elapsed() < self.every {
                continue;
            }
            if let Some(heard) = self.sign(waiting) {
                work.waiting = None;
                work.heard = Some(heard);
            }
        }
    }

    /// Takes part in the exchange that the others wait in.
    fn sign(&self, waiting: Waiting) -> Option<Heard> {
        let exchanged = match waiting {
            Waiting::ToBegin => ready(&self.group, None).map(|(_, worst)| worst),
            Waiting::ForVerdict => exchange::number_of(&self.group, 0, AT_WORK)
                .map(|_| Ready::Yes)
                .map_err(TrainError::from),
        };
        match exchanged {
            Ok(Ready::No) => Some(Heard::Refusal),
            Ok(_) => None,
            Err(error) => {
                // Nobody waits for an evaluation any more.
                if waiting == Waiting::ForVerdict {
                    interrupt::ask();
                }
                Some(Heard::Failure(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use deepsim_nets::Rendezvous;

    use super::*;

    /// After which a process is given up here.
    const PATIENCE: Duration = Duration::from_secs(4);
    /// What takes longer.
    const LONG: Duration = Duration::from_secs(9);

    /// Runs both in threads, each with its place in a group of two.
    fn two<A: Send + 'static, B: Send + 'static>(
        first: impl FnOnce(&ProcessGroup, &AtWork) -> A + Send + 'static,
        second: impl FnOnce(&ProcessGroup, &AtWork) -> B + Send + 'static,
    ) -> (A, B) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let joined = move |rank: i64| {
            let at = Rendezvous {
                host: "127.0.0.1".into(),
                port,
                rank,
                size: 2,
                serves: rank == 0,
                prefix: "work".into(),
            };
            let group = Arc::new(ProcessGroup::join(&at, PATIENCE).unwrap());
            let at_work = AtWork::new(Arc::clone(&group), PATIENCE).unwrap();
            (group, at_work)
        };
        let first = std::thread::spawn(move || {
            let (group, at_work) = joined(0);
            first(&group, &at_work)
        });
        let second = std::thread::spawn(move || {
            let (group, at_work) = joined(1);
            second(&group, &at_work)
        });
        (first.join().unwrap(), second.join().unwrap())
    }

    #[test]
    fn a_verdict_may_take_longer_than_patience_lasts_while_rank_0_works() {
        let (_, found) = two(
            |group, at_work| {
                at_work.begin(Waiting::ForVerdict);
                std::thread::sleep(LONG);
                assert!(at_work.end().is_none());
                verdict(group, 143).unwrap()
            },
            |group, _| verdict(group, 0).unwrap(),
        );
        assert_eq!(found, 143);
    }

    #[test]
    fn all_wait_for_the_one_that_opens_its_inputs_longest() {
        let begun = |group: &ProcessGroup, at_work: &AtWork, after: Duration, own: Ready| {
            at_work.begin(Waiting::ToBegin);
            std::thread::sleep(after);
            assert!(at_work.end().is_none());
            loop {
                let (all, worst) = ready(group, Some(own)).unwrap();
                if all {
                    return worst;
                }
            }
        };
        let found = two(
            move |group, at_work| begun(group, at_work, LONG, Ready::Finished),
            move |group, at_work| begun(group, at_work, Duration::ZERO, Ready::Yes),
        );
        assert_eq!(found, (Ready::Finished, Ready::Finished));
    }

    #[test]
    fn one_that_cannot_begin_waits_for_nobody() {
        let ((), waited) = two(
            |_, at_work| {
                at_work.begin(Waiting::ToBegin);
                std::thread::sleep(LONG);
                assert!(matches!(at_work.end(), Some(Heard::Refusal)));
            },
            |group, at_work| {
                at_work.begin(Waiting::ToBegin);
                assert!(at_work.end().is_none());
                let asked = Instant::now();
                assert_eq!(ready(group, Some(Ready::No)).unwrap(), (false, Ready::No));
                asked.elapsed()
            },
        );
        assert!(waited < LONG, "{waited:?}");
    }
}

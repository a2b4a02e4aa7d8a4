//! Computations that take turns: the shards of a batch, which need sums over all of them midway.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};

use tch::Tensor;

use crate::exchange::{Others, among, set_failure, sum_in_order, take_failure};
use crate::{AtenError, GroupError, ProcessGroup};

/// Passes back through deep networks recurse.
const STACK: usize = 16 << 20;

/// Runs `body` for each of this process's shards, `0..shards`. In all of them [`summed`](crate::summed) is the sum over all
/// shards of all processes of the group, which have as many each, added in the order of the shards.
///
/// Each has a thread, and they take turns: one computes until it needs a sum, then the next one, and when all have brought
/// their parts the first one goes on. No two run at a time. A single shard has a thread of its own as well: autograd counts
/// operations thread by thread and goes back by these numbers, so that other threads would add gradients in another order.
///
/// # Errors
/// That of the shard that failed first; a shard that asks for other sums than the others is one.
pub fn in_turns<T: Send, E: Send + From<AtenError>>(
    group: Option<Arc<ProcessGroup>>,
    shards: usize,
    body: impl Fn(usize) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let turns = Arc::new(Turns {
        state: Mutex::new(State {
            turn: 0,
            brought: Vec::new(),
            total: None,
            ended: vec![false; shards],
            failed: None,
        }),
        changed: Condvar::new(),
        group,
    });
    let body = Shared(&body);
    let run = |shard: usize| {
        let body = &body;
        // libtorch tells a thread its number of threads when it is first asked, and oneDNN does not ask.
        let _ = tch::get_num_threads();
        // All threads share the cache of casts, and a region that ends in one of them clears it.
        // SAFETY: sets a flag of this thread.
        unsafe { deepsim_keep_casts(0) };
        drop(turns.wait(shard));
        let own: Rc<dyn Others> = Rc::new(Shard {
            turns: Arc::clone(&turns),
            shard,
        });
        let result = catch_unwind(AssertUnwindSafe(|| among(Some(own), || (body.0)(shard))));
        turns.end(shard, matches!(result, Ok(Ok(_))));
        (result, take_failure())
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let (run, mut threads) = (&run, Vec::new());
        for shard in 0..shards {
            let name = format!("shard {shard}");
            let thread = Builder::new().name(name).stack_size(STACK);
            // Those that have begun are waited for whatever happens: a thread that cannot be begun ends its turn.
            match thread.spawn_scoped(scope, move || run(shard)) {
                Ok(thread) => threads.push(Ok(thread)),
                Err(error) => {
                    turns.end(shard, false);
                    let reason = format!("no thread for a shard: {error}");
                    threads.push(Err(GroupError::Other(reason)));
                }
            }
        }
        let ended = |thread: Result<ScopedJoinHandle<'_, _>, GroupError>| {
            thread.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        };
        threads.into_iter().map(ended).collect()
    });
    if let Some(shard) = turns.lock().failed {
        // Its reason is the others' reason.
        results.swap(0, shard);
    }
    let mut all = Vec::with_capacity(shards);
    for result in results {
        let (result, failure) = result.map_err(|error| E::from(error.into()))?;
        match result {
            Ok(Ok(value)) => all.push(value),
            Ok(Err(error)) => {
                set_failure(failure);
                return Err(error);
            }
            Err(panic) => resume_unwind(panic),
        }
    }
    match turns.lock().failed {
        Some(_) => Err(E::from(unlike().into())),
        None => Ok(all),
    }
}

unsafe extern "C" {
    fn deepsim_keep_casts(on: c_int);
}

/// What threads that take turns share.
struct Shared<'a, F>(&'a F);

// SAFETY: threads use what is inside in turns alone: one of them at a time, and each turn begins after the one before has
// ended, with a mutex between them. So there are no two accesses at a time to anything that the function has or makes.
unsafe impl<F> Sync for Shared<'_, F> {}
// SAFETY: as above.
unsafe impl<F> Send for Shared<'_, F> {}

struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    group: Option<Arc<ProcessGroup>>,
}

struct State {
    /// The shard that runs.
    turn: usize,
    /// What the first shards have brought for the next sum.
    brought: Vec<Tensor>,
    /// The last sum.
    total: Option<Tensor>,
    /// Which shards have ended.
    ended: Vec<bool>,
    /// The shard that failed first.
    failed: Option<usize>,
}

impl State {
    /// The next one that has not ended runs.
    fn pass_on(&mut self, from: usize) {
        let all = self.ended.len();
        let mut next = (from + 1..all).chain(0..=from);
        self.turn = next.find(|&shard| !self.ended[shard]).unwrap_or(all);
    }

    fn fail(&mut self, shard: usize) {
        self.failed.get_or_insert(shard);
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, shard: usize) -> MutexGuard<'_, State> {
        let state = self.lock();
        let waited = self.changed.wait_while(state, |state| state.turn != shard);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, state: &mut State, from: usize) {
        state.pass_on(from);
        self.changed.notify_all();
    }

    fn end(&self, shard: usize, well: bool) {
        let mut state = self.lock();
        state.ended[shard] = true;
        // What earlier shards have brought waits for this one's part.
        if !well || !state.brought.is_empty() {
            state.fail(shard);
        }
        if state.turn == shard {
            self.pass_on(&mut state, shard);
        }
    }

    fn sum(&self, shard: usize, own: &Tensor) -> Result<Tensor, AtenError> {
        let mut state = self.lock();
        if state.failed.is_some() || state.brought.len() != shard {
            state.fail(shard);
            return Err(unlike().into());
        }
        state.brought.push(own.shallow_clone());
        let shards = state.ended.len();
        if state.brought.len() == shards {
            let sum = sum_in_order(self.group.as_deref(), &state.brought);
            state.brought.clear();
            state.total = Some(sum.inspect_err(|_| state.fail(shard))?);
        }
        if shards > 1 {
            self.pass_on(&mut state, shard);
            drop(state);
            state = self.wait(shard);
        }
        match (&state.total, state.failed) {
            // Each has its own: autograd marks what an operation gives.
            (Some(total), None) => Ok(total.copy()),
            _ => Err(unlike().into()),
        }
    }
}

fn unlike() -> GroupError {
    GroupError::Other("another shard has failed, or asks for other sums".to_owned())
}

/// A shard among the others.
struct Shard {
    turns: Arc<Turns>,
    shard: usize,
}

impl Others for Shard {
    fn sum(&self, own: &Tensor) -> Result<Tensor, AtenError> {
        self.turns.sum(self.shard, own)
    }

    fn leads(&self) -> bool {
        self.shard == 0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tch::Kind;

    use super::*;
    use crate::summed;

    type Outcome<T> = Result<T, AtenError>;

    fn number(value: f64) -> Tensor {
        Tensor::from_slice(&[value]).set_requires_grad(true)
    }

    #[test]
    fn shards_run_one_at_a_time_and_see_sums_over_all_forward_and_back() {
        let log = RefCell::new(Vec::new());
        let found = in_turns(None, 3, |shard| -> Outcome<[f64; 2]> {
            log.borrow_mut().push(shard);
            let x = number(shard as f64 + 1.0);
            let sum = summed(&x)?;
            log.borrow_mut().push(10 + shard);
            let loss = &sum * &sum * (shard as f64 + 1.0);
            let gradient = Tensor::f_run_backward(&[loss], &[&x], false, false);
            let gradient = gradient.map_err(|e| AtenError::Torch(e.to_string()))?;
            Ok([sum.double_value(&[0]), gradient[0].double_value(&[0])])
        });
        // The sum is 6; the gradient of the sum of (1 + 2 + 3) · sum² is 12 · sum.
        assert_eq!(found.unwrap(), [[6.0, 72.0]; 3]);
        assert_eq!(log.take(), [0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn sums_are_added_in_the_order_of_the_shards() {
        let parts = [1.0, 2f64.powi(60), -(2f64.powi(60)), 0.5];
        let tensors = parts.map(|part| Tensor::from_slice(&[part]));
        let sum = sum_in_order(None, &tensors).unwrap();
        assert_eq!(sum.double_value(&[0]), 0.5);
        let found = in_turns(None, 4, |shard| -> Outcome<f64> {
            Ok(summed(&number(parts[shard]))?.double_value(&[0]))
        });
        assert_eq!(found.unwrap(), [0.5; 4]);
        // More than what is gathered at once, of two dimensions.
        let many =
            [1.0, 2.0].map(|v| Tensor::full([2, 1_500_000], v, (Kind::Float, tch::Device::Cpu)));
        let sum = sum_in_order(None, &many).unwrap();
        assert_eq!(sum.size(), [2, 1_500_000]);
        assert_eq!(sum.sum(Kind::Double).double_value(&[]), 9e6);
    }

    #[test]
    fn the_first_failure_is_told_and_nobody_waits_for_ever() {
        let failing = |at: usize, before: usize| {
            in_turns(None, 3, |shard| -> Outcome<()> {
                for _ in 0..before {
                    let _ = summed(&number(1.0))?;
                }
                if shard == at {
                    return Err(AtenError::Torch(format!("shard {shard} is ill")));
                }
                summed(&number(1.0)).map(drop)
            })
        };
        for (at, before) in [(0, 0), (1, 0), (2, 1), (1, 2)] {
            let text = failing(at, before).unwrap_err().to_string();
            assert_eq!(text, format!("libtorch: shard {at} is ill"));
        }
    }

    #[test]
    fn shards_that_ask_for_other_sums_are_refused() {
        for odd in 0..3 {
            let found = in_turns(None, 3, |shard| -> Outcome<()> {
                for _ in 0..=usize::from(shard == odd) {
                    let _ = summed(&number(1.0))?;
                }
                Ok(())
            });
            let text = found.unwrap_err().to_string();
            assert!(text.contains("asks for other sums"), "{text}");
        }
    }

    #[test]
    fn a_panic_of_a_shard_is_the_caller_s() {
        let panic = catch_unwind(|| {
            in_turns(None, 2, |shard| -> Outcome<()> {
                assert_ne!(shard, 1, "shard 1 panics");
                summed(&number(1.0)).map(drop)
            })
        });
        let panic = panic.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("shard 1 panics"), "{text}");
    }
}

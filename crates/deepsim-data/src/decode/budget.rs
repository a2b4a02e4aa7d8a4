//! One memory budget for all images that are decoded at the same time, whatever the number of
//! threads. The memory for an image is computed from its header, and a thread waits until that much
//! is free. Threads are served in the order of their requests, so that a large image is not
//! overtaken for ever.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::limits::{MAX_FILE, MAX_MEMORY};

/// Memory for decoding: a thread that holds some of it never waits for more.
pub(super) static DECODING: Budget = Budget::new(MAX_MEMORY);

/// Memory for files that are read whole before they are decoded. A thread takes it before it waits
/// for [`DECODING`], and keeps it meanwhile. In the other order two threads could wait for each
/// other for ever.
pub(super) static FILES: Budget = Budget::new(MAX_FILE);

/// So many bytes, shared by all threads.
#[derive(Debug)]
pub(super) struct Budget {
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    used: u64,
    /// The ticket of the next request, and the ticket that is served now.
    next: u64,
    turn: u64,
}

impl Budget {
    const fn new(total: u64) -> Self {
        Self {
            total,
            state: Mutex::new(State {
                used: 0,
                next: 0,
                turn: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` are free and takes them; `None` if there will never be so many.
    pub fn take(&'static self, bytes: u64) -> Option<Reservation> {
        if bytes > self.total {
            return None;
        }
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        while state.turn != number || self.total - state.used < bytes {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.used += bytes;
        self.wake(&state);
        Some(Reservation {
            budget: self,
            bytes,
        })
    }

    fn wake(&self, state: &State) {
        if state.turn != state.next {
            self.changed.notify_all();
        }
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.lock();
        state.used -= bytes;
        self.wake(&state);
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: &'static Budget,
    bytes: u64,
}

impl Reservation {
    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.budget.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn threads_together_never_hold_more_than_the_budget_and_all_get_their_turn() {
        static BUDGET: Budget = Budget::new(100);
        static HELD: AtomicU64 = AtomicU64::new(0);
        let threads: Vec<_> = (1..=8_u64)
            .map(|number| {
                thread::spawn(move || {
                    for round in 0..200 {
                        let bytes = (number * 31 + round * 7) % 101;
                        let mut reservation = BUDGET.take(bytes).unwrap();
                        let held = HELD.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(held <= 100, "{held}");
                        HELD.fetch_sub(bytes - bytes / 2, Ordering::SeqCst);
                        reservation.shrink(bytes / 2);
                        thread::yield_now();
                        HELD.fetch_sub(bytes / 2, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let state = BUDGET.lock();
        assert_eq!((state.used, state.turn), (0, 1600));
    }

    #[test]
    fn what_can_never_fit_is_refused_at_once() {
        static BUDGET: Budget = Budget::new(100);
        let _some = BUDGET.take(60).unwrap();
        assert!(BUDGET.take(101).is_none());
        assert!(BUDGET.take(40).is_some());
    }
}

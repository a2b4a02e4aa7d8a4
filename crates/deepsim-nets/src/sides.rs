//! The sides of kinks on which values lie, recorded and imposed: an instrument for tests.
//!
//! A gradient jumps where a rectifier's input crosses zero, or where another value of a pool's window
//! becomes the largest. A value that is nearer to such a kink than rounding may lie on either side of it
//! in two correct computations, and a single one of 300,000 moves a gradient by 1e-3. Between kinks the
//! gradient is a smooth function: two computations with the same sides differ by rounding alone. So a
//! test records the sides that one computation took ([`recorded`]) and imposes them on another in
//! double precision ([`imposed`]). Outputs do not jump: they show that all sides were legitimate.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::error::{NetError, Result};

/// Sides in the order in which a computation came by them.
#[derive(Debug, Default)]
pub struct Sides(Vec<Tensor>);

impl Sides {
    /// How many values lie on another side than in `other`, of how many.
    ///
    /// # Errors
    /// Sides of another computation.
    pub fn differing(&self, other: &Sides) -> Result<(i64, i64)> {
        let (mut differing, mut all) = (0, 0);
        if self.0.len() != other.0.len() {
            return Err(unlike());
        }
        for (a, b) in self.0.iter().zip(&other.0) {
            differing += a.f_ne_tensor(b)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            all += i64::try_from(a.numel()).unwrap_or(i64::MAX);
        }
        Ok((differing, all))
    }

    /// Turns one value of the last kink to its other side.
    ///
    /// # Errors
    /// No sides.
    pub fn turn_one(&self) -> Result<Sides> {
        let mut turned: Vec<Tensor> = self.0.iter().map(Tensor::shallow_clone).collect();
        let last = turned.pop().ok_or_else(unlike)?.copy();
        let one = last.f_flatten(0, -1)?.f_narrow(0, 0, 1)?;
        one.shallow_clone().f_copy_(&one.f_logical_not()?)?;
        turned.push(last);
        Ok(Sides(turned))
    }
}

enum State {
    Off,
    Recording(Vec<Tensor>),
    Imposing(std::vec::IntoIter<Tensor>),
}

thread_local! {
    static STATE: RefCell<State> = const { RefCell::new(State::Off) };
}

fn unlike() -> NetError {
    NetError::Spec("the sides of kinks are those of another computation".into())
}

/// Runs `body` in this thread and notes the sides of all kinks that it comes by.
pub fn recorded<T>(body: impl FnOnce() -> T) -> (T, Sides) {
    STATE.set(State::Recording(Vec::new()));
    let result = body();
    let sides = match STATE.replace(State::Off) {
        State::Recording(sides) => sides,
        State::Off | State::Imposing(_) => Vec::new(),
    };
    (result, Sides(sides))
}

/// Runs `body` in this thread with these sides instead of its values' own.
///
/// # Errors
/// A computation with fewer kinks than there are sides (one with more fails by itself).
pub fn imposed<T>(sides: &Sides, body: impl FnOnce() -> T) -> Result<T> {
    let all: Vec<Tensor> = sides.0.iter().map(Tensor::shallow_clone).collect();
    STATE.set(State::Imposing(all.into_iter()));
    let result = body();
    match STATE.replace(State::Off) {
        State::Imposing(rest) if rest.len() == 0 => Ok(result),
        State::Imposing(_) | State::Off | State::Recording(_) => Err(unlike()),
    }
}

/// Whether sides are imposed: then no kernel may take its own.
pub(crate) fn are_imposed() -> bool {
    STATE.with_borrow(|state| matches!(state, State::Imposing(_)))
}

/// The next sides that are imposed, if any are.
pub(crate) fn next() -> Result<Option<Tensor>> {
    STATE.with_borrow_mut(|state| match state {
        State::Imposing(rest) => rest.next().map(Some).ok_or_else(unlike),
        State::Off | State::Recording(_) => Ok(None),
    })
}

/// Notes sides where they are recorded.
pub(crate) fn note(of: impl FnOnce() -> std::result::Result<Tensor, tch::TchError>) -> Result<()> {
    STATE.with_borrow_mut(|state| {
        if let State::Recording(sides) = state {
            sides.push(of()?);
        }
        Ok(())
    })
}

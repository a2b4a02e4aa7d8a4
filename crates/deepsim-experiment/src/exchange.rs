//! What several processes tell each other: numbers, bytes and facts. All make the same calls in the same order.

use std::collections::BTreeMap;

use deepsim_data::terminal::one_line;
use deepsim_nets::{AtenError, GroupError, NetError, ProcessGroup};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use crate::error::{ExperimentError, Result};

/// What a failed exchange means: [`ExperimentError::Peer`] where another process is gone, does not answer or does
/// something else.
pub fn lost(error: AtenError) -> ExperimentError {
    match error {
        AtenError::Group(GroupError::Gone(_) | GroupError::Late(_) | GroupError::Disagree(_)) => {
            ExperimentError::Peer(error.to_string())
        }
        other => NetError::from(other).into(),
    }
}

/// The largest of each number over all processes.
///
/// # Errors
/// Those of [`lost`].
pub fn largest<const N: usize>(group: &ProcessGroup, own: [i64; N]) -> Result<[i64; N]> {
    let tensor = Tensor::f_from_slice(&own)?;
    group.all_reduce_max(&tensor).map_err(lost)?;
    let mut most = own;
    for (index, value) in (0..).zip(&mut most) {
        *value = tensor.f_int64_value(&[index])?;
    }
    Ok(most)
}

/// The number of one process, `root`, in all.
///
/// # Errors
/// Those of [`lost`].
pub fn number_of(group: &ProcessGroup, root: i64, own: i64) -> Result<i64> {
    let tensor = Tensor::f_from_slice(&[own])?;
    group.broadcast(&tensor, root).map_err(lost)?;
    Ok(tensor.f_int64_value(&[0])?)
}

/// The bytes of one process, `root`, in all.
pub(crate) fn bytes_of(group: &ProcessGroup, root: i64, own: &[u8]) -> Result<Vec<u8>> {
    let length = i64::try_from(own.len()).unwrap_or(i64::MAX);
    let length = number_of(group, root, length)?;
    // As numbers of a kind that every process group knows.
    let codes: Vec<i64> = if root == group.rank() {
        own.iter().map(|byte| i64::from(*byte)).collect()
    } else {
        vec![0; usize::try_from(length).unwrap_or_default()]
    };
    let codes = Tensor::f_from_slice(&codes)?;
    group.broadcast(&codes, root).map_err(lost)?;
    let codes = Vec::<i64>::try_from(&codes)?.into_iter();
    Ok(codes
        .map(|code| u8::try_from(code).unwrap_or_default())
        .collect())
}

/// What rank 0 says, in all processes.
///
/// # Errors
/// Those of [`lost`]; [`ExperimentError::Ranks`] for what JSON cannot say.
pub fn said_by_first<T: Serialize + DeserializeOwned>(group: &ProcessGroup, own: &T) -> Result<T> {
    let unsaid = |error: serde_json::Error| ExperimentError::Ranks(error.to_string());
    let own = serde_json::to_vec(own).map_err(unsaid)?;
    serde_json::from_slice(&bytes_of(group, 0, &own)?).map_err(unsaid)
}

/// Compares `facts`, by name, with those of rank 0, which count. The first that is different here, in words: all processes
/// must do the same, which `what` says (`train`).
///
/// # Errors
/// Those of [`said_by_first`].
pub fn difference(
    group: &ProcessGroup,
    facts: &BTreeMap<String, String>,
    what: &str,
) -> Result<Option<String>> {
    let theirs = said_by_first(group, facts)?;
    let mut keys = facts.keys().chain(theirs.keys());
    let Some(key) = keys.find(|key| facts.get(*key) != theirs.get(*key)) else {
        return Ok(None);
    };
    let shown = |value: Option<&String>| {
        let value = value.map_or("nothing", String::as_str);
        one_line(&value.chars().take(40).collect::<String>()).into_owned()
    };
    Ok(Some(format!(
        "{} is {} here (rank {}), and {} in rank 0: all processes must {what} the same",
        one_line(key),
        shown(facts.get(key)),
        group.rank(),
        shown(theirs.get(key))
    )))
}

//! Several processes that work together are launched as PyTorch's are: by torchrun, or with RANK, WORLD_SIZE, MASTER_ADDR
//! and MASTER_PORT in their environment. Here these variables are read.

use std::time::Duration;

use deepsim_data::terminal::one_line;
use deepsim_nets::{ProcessGroup, Rendezvous};

use crate::error::{ExperimentError, Result};

/// Whether the environment calls this process one that follows rank 0.
pub fn is_follower(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("RANK").is_some_and(|rank| rank.trim().parse::<i64>().is_ok_and(|rank| rank > 0))
}

/// Joins the others there, when all have come; waits for them at most for `patience`, and so in each exchange later.
///
/// # Errors
/// [`ExperimentError::Ranks`]: a port in use, a process that does not come or was told otherwise.
pub fn meet(at: &Rendezvous, patience: Duration) -> Result<ProcessGroup> {
    ProcessGroup::join(at, patience).map_err(|error| {
        refused(format!(
            "rank {} of {} cannot join the others at {}:{}: {error}",
            at.rank,
            at.size,
            one_line(&at.host),
            at.port
        ))
    })
}

fn refused(reason: String) -> ExperimentError {
    ExperimentError::Ranks(reason)
}

/// Where the processes of a `program` meet, as PyTorch's variables say. None for one process: without RANK and WORLD_SIZE, or
/// in a world of one.
///
/// # Errors
/// [`ExperimentError::Ranks`]: variables that are missing or contradict each other.
pub fn read(
    program: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Rendezvous>> {
    let number = |name: &str| -> Result<Option<i64>> {
        let Some(text) = variable(name) else {
            return Ok(None);
        };
        match text.trim().parse::<i64>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => Err(refused(format!("{name} is no number: {}", one_line(&text)))),
        }
    };
    let (rank, size) = match (number("RANK")?, number("WORLD_SIZE")?) {
        (None, None) => return Ok(None),
        (Some(rank), Some(size)) => (rank, size),
        (None, Some(1)) => return Ok(None),
        (None, Some(size)) => {
            return Err(refused(format!(
                "WORLD_SIZE is {size}, but RANK is not set"
            )));
        }
        (Some(rank), None) => {
            return Err(refused(format!(
                "RANK is {rank}, but WORLD_SIZE is not set"
            )));
        }
    };
    if rank >= size {
        return Err(refused(format!(
            "RANK is {rank} and WORLD_SIZE {size}: ranks are 0 to WORLD_SIZE - 1"
        )));
    }
    if size == 1 {
        return Ok(None);
    }
    let host = variable("MASTER_ADDR").filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| {
        refused("MASTER_ADDR is not set: the host of rank 0, where the processes meet".to_owned())
    })?;
    let port = number("MASTER_PORT")?
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        refused("MASTER_PORT is not set, or no port: 1 to 65535 on the host of rank 0".to_owned())
    })?;
    // torchrun's agent serves the store: neither a restarted group nor another program must find the keys of the one before.
    let agent = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
    let restarts = variable("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
    let run = variable("TORCHELASTIC_RUN_ID").unwrap_or_default();
    Ok(Some(Rendezvous {
        host,
        port,
        rank,
        size,
        serves: rank == 0 && !agent,
        prefix: format!("{program}/{run}/{restarts}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(set: &[(&str, &str)]) -> Result<Option<Rendezvous>> {
        read("deepsim", |name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const TWO: [(&str, &str); 4] = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn variables_of_torchrun_say_where_processes_meet() {
        assert!(at(&[]).unwrap().is_none());
        assert!(at(&[("WORLD_SIZE", "1")]).unwrap().is_none());
        let bare = at(&TWO).unwrap().unwrap();
        assert_eq!((bare.rank, bare.size, bare.port), (0, 2, 29500));
        assert!(bare.serves);
        let agent = [
            &TWO[..],
            &[
                ("TORCHELASTIC_USE_AGENT_STORE", "True"),
                ("TORCHELASTIC_RESTART_COUNT", "3"),
                ("TORCHELASTIC_RUN_ID", "job"),
            ],
        ];
        let under = at(&agent.concat()).unwrap().unwrap();
        assert!(!under.serves);
        assert_eq!(under.prefix, "deepsim/job/3");
    }

    #[test]
    fn contradictions_are_told() {
        for (change, words) in [
            (("RANK", "2"), "RANK is 2 and WORLD_SIZE 2"),
            (("RANK", "x"), "RANK is no number"),
            (("WORLD_SIZE", "-1"), "WORLD_SIZE is no number"),
            (("MASTER_ADDR", ""), "MASTER_ADDR is not set"),
            (
                ("MASTER_PORT", "70000"),
                "MASTER_PORT is not set, or no port",
            ),
        ] {
            let set: Vec<_> = TWO
                .into_iter()
                .map(|(name, value)| {
                    if name == change.0 {
                        change
                    } else {
                        (name, value)
                    }
                })
                .collect();
            let text = at(&set).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        let text = at(&TWO[..1]).unwrap_err().to_string();
        assert!(text.contains("WORLD_SIZE is not set"), "{text}");
    }
}

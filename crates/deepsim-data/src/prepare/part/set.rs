//! Do parts make a dataset? All of them, each once, of one source and made alike.

use std::path::{Path, PathBuf};

use super::Head;
use crate::error::DataError;
use crate::prepare::fault::PartFault;

/// Missing parts that a message names.
const NAMED: usize = 12;

/// A part, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub path: PathBuf,
    pub head: Head,
}

/// Reads the heads of parts and checks that together they are one dataset; gives them in order. `out` is where it is to
/// be made.
///
/// # Errors
/// Those of [`Head::read`] and [`Head::check_files`], and all of [`PartFault`] that are about several parts.
pub(crate) fn gather(out: &Path, paths: &[PathBuf]) -> Result<Vec<Member>, DataError> {
    let mut members = Vec::with_capacity(paths.len());
    for path in paths {
        let (path, head) = (path.clone(), Head::read(path)?);
        members.push(Member { path, head });
    }
    let Some(first) = members.first() else {
        return Err(PartFault::NoParts.into());
    };
    for member in &members {
        lie_apart(out, &member.path)?;
    }
    for member in &members[1..] {
        fit(member, first)?;
    }
    // stable: of parts given twice the message names the first first
    members.sort_by_key(|member| member.head.share.number());
    all_once(&members)?;
    for member in &members {
        member.head.check_files(&member.path)?;
    }
    Ok(members)
}

/// Were two parts cut from one source in one way, with the same options?
fn fit(member: &Member, other: &Member) -> Result<(), PartFault> {
    let (path, share) = (member.path.clone(), member.head.share);
    let (other_share, plan, other_plan) = (other.head.share, &member.head.plan, &other.head.plan);
    let other = other.path.clone();
    if share.of() != other_share.of() {
        return Err(PartFault::Counts {
            path,
            share,
            other,
            other_share,
        });
    }
    if (&plan.source.listing, plan.source.images)
        != (&other_plan.source.listing, other_plan.source.images)
    {
        return Err(PartFault::Source {
            path,
            share,
            images: plan.source.images,
            other,
            other_share,
            other_images: other_plan.source.images,
        });
    }
    // the layout follows from the names in the source and from its own
    if plan.source != other_plan.source {
        return Err(PartFault::SourceName {
            path,
            share,
            name: plan.source.name.clone(),
            other,
            other_share,
            other_name: other_plan.source.name.clone(),
        });
    }
    match plan.differing(other_plan) {
        None => Ok(()),
        Some((option, other_option)) => Err(PartFault::Options {
            path,
            share,
            option,
            other,
            other_share,
            other_option,
        }),
    }
}

/// Is every part there, and none twice? They are sorted by their numbers.
fn all_once(members: &[Member]) -> Result<(), PartFault> {
    for pair in members.windows(2) {
        let [one, other] = pair else { continue };
        if one.head.share == other.head.share {
            return Err(PartFault::Twice {
                share: one.head.share,
                path: one.path.clone(),
                other: other.path.clone(),
            });
        }
    }
    let Some(of) = members.first().map(|member| member.head.share.of()) else {
        return Ok(());
    };
    let count = of as usize - members.len();
    if count == 0 {
        return Ok(());
    }
    let there = |number: &u32| {
        let found = members.binary_search_by_key(number, |member| member.head.share.number());
        found.is_ok()
    };
    let missing = (1..=of).filter(|number| !there(number));
    let first: Vec<String> = missing
        .take(NAMED)
        .map(|number| number.to_string())
        .collect();
    let more = match count - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let missing = format!("{}{more}", first.join(", "));
    Err(PartFault::Missing { missing, of })
}

/// Refuses an output in a part, and a part in the output.
fn lie_apart(out: &Path, part: &Path) -> Result<(), PartFault> {
    let (Some(at), Ok(place)) = (place(out), part.canonicalize()) else {
        return Ok(());
    };
    let (inner, outer) = if at.starts_with(&place) {
        (out, part)
    } else if place.starts_with(&at) {
        (part, out)
    } else {
        return Ok(());
    };
    Err(PartFault::Within {
        inner: inner.into(),
        outer: outer.into(),
    })
}

/// Where a path leads whose end need not be there yet, without symbolic links.
fn place(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|known| {
        let real = known.canonicalize().ok()?;
        let rest = absolute.strip_prefix(known).ok()?;
        Some(real.join(rest))
    })
}

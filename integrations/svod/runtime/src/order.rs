//! The order of a plan's ops.
//!
//! Svod gives each op what must come before it, and a plan of the library wants the ops in an
//! order that is right when they run one after another. That is by levels: an op's level is one
//! above the highest of what it waits for, and within a level the ops stand as they came. It is
//! the order for which Svod's memory planner shares memory between temporaries.

use std::collections::HashMap;

use crate::{Error, Result};

/// The numbers of the ops, in order. `ids` are what ops call each other by in `deps`; where an
/// id stands twice, that which was last before the op is meant. `instance_deps` are numbers.
pub(crate) fn by_levels(
    ids: &[u64],
    deps: &[&[u64]],
    instance_deps: &[Vec<usize>],
) -> Result<Vec<usize>> {
    let waits_for = resolve(ids, deps, instance_deps)?;
    let mut levels = vec![None; ids.len()];
    let mut left: Vec<usize> = (0..ids.len()).collect();
    // An op whose level is known when its turn comes is in the first round for most plans,
    // since Svod hands ops over in an order that is right.
    while !left.is_empty() {
        let before = left.len();
        left.retain(|&op| {
            let mut known = waits_for[op].iter().map(|&d| levels[d]);
            let level = known.try_fold(0, |most: usize, level| Some(most.max(level? + 1)));
            levels[op] = level;
            level.is_none()
        });
        if left.len() == before {
            let ids: Vec<_> = left.iter().map(|&op| ids[op]).collect();
            return Err(Error::execution(format!(
                "the ops {ids:?} wait for each other in a circle"
            )));
        }
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&op| levels[op]);
    Ok(order)
}

/// The numbers of the ops that each waits for.
fn resolve(ids: &[u64], deps: &[&[u64]], instance_deps: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
    let mut last = HashMap::with_capacity(ids.len());
    let unique = ids
        .iter()
        .enumerate()
        .all(|(op, id)| last.insert(*id, op).is_none());
    if !unique {
        last.clear();
    }
    let mut all = Vec::with_capacity(ids.len());
    for (op, (id, deps)) in ids.iter().zip(deps).enumerate() {
        let mut waits_for = Vec::with_capacity(deps.len());
        for dep in *deps {
            let found = last.get(dep).ok_or_else(|| {
                Error::execution(format!(
                    "op {id} waits for op {dep}, which the plan has not"
                ))
            })?;
            waits_for.push(*found);
        }
        for &dep in instance_deps.get(op).into_iter().flatten() {
            if dep >= ids.len() || dep == op {
                return Err(Error::execution(format!(
                    "op {id}, number {op} of {}, waits for number {dep}",
                    ids.len()
                )));
            }
            waits_for.push(dep);
        }
        if !unique {
            last.insert(*id, op);
        }
        all.push(waits_for);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::by_levels;

    #[test]
    fn ops_come_after_what_they_wait_for_and_as_they_came_within_a_level() {
        let order = by_levels(&[7, 8, 9, 10], &[&[9], &[], &[], &[8]], &[]);
        assert_eq!(order.unwrap(), [1, 2, 0, 3]);
    }

    #[test]
    fn an_id_that_stands_twice_means_the_last_one_before() {
        // The third waits for the second of the same id, not for itself.
        let order = by_levels(&[1, 1, 1], &[&[], &[1], &[1]], &[]);
        assert_eq!(order.unwrap(), [0, 1, 2]);
        assert!(by_levels(&[1, 1, 2], &[&[2], &[], &[]], &[]).is_err());
    }

    #[test]
    fn numbers_order_too() {
        let order = by_levels(&[1, 2], &[&[], &[]], &[vec![1], vec![]]);
        assert_eq!(order.unwrap(), [1, 0]);
        assert!(by_levels(&[1], &[&[]], &[vec![0]]).is_err());
        assert!(by_levels(&[1], &[&[]], &[vec![5]]).is_err());
    }

    #[test]
    fn what_waits_in_a_circle_or_for_nothing_is_refused() {
        let circle = by_levels(&[1, 2], &[&[2], &[1]], &[]);
        assert!(circle.unwrap_err().to_string().contains("[1, 2]"));
        let unknown = by_levels(&[1], &[&[5]], &[]);
        assert!(unknown.unwrap_err().to_string().contains("op 5"));
    }
}

//! Order of resources: stable, so that the same policy always runs the same way, and a cycle shown as a path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What a link between two resources means. The first always runs before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// The second runs only where the first did not fail.
    Depends,
    /// The second only comes later.
    After,
    /// The second runs again where the first changed.
    Notify,
}

/// A link between resources by their positions as declared.
pub type Edge = (u32, u32, Link);

/// An order, and the links in terms of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Declared positions in the order in which they run.
    pub order: Vec<u32>,
    /// For each place in the order, what it is linked to, as places in the order.
    pub links: Vec<Links>,
}

/// Links of one resource: ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Earlier places that must not have failed.
    pub depends_on: Vec<u32>,
    /// Earlier places that only come first.
    pub after: Vec<u32>,
    /// Later places to run again.
    pub notify: Vec<u32>,
}

/// A cycle: each runs before the next, the last before the first. Begins at the one declared first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<u32>);

/// Orders `n` resources: of those that may run next always the one declared first (Kahn's algorithm with a heap).
pub fn plan(n: u32, edges: &[Edge]) -> Result<Plan, Cycle> {
    let mut after: Vec<Vec<u32>> = vec![Vec::new(); n as usize];
    let mut waits = vec![0u32; n as usize];
    for &(first, second, _) in edges {
        after[first as usize].push(second);
        waits[second as usize] += 1;
    }
    let mut ready: BinaryHeap<Reverse<u32>> = (0..n).filter(|&node| waits[node as usize] == 0).map(Reverse).collect();
    let (mut order, mut place) = (Vec::with_capacity(n as usize), vec![0u32; n as usize]);
    while let Some(Reverse(node)) = ready.pop() {
        place[node as usize] = order.len() as u32;
        order.push(node);
        for &next in &after[node as usize] {
            waits[next as usize] -= 1;
            if waits[next as usize] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    if order.len() < n as usize {
        return Err(find_cycle(edges, &waits));
    }
    let mut links = vec![Links::default(); n as usize];
    for &(first, second, link) in edges {
        let (first, second) = (place[first as usize], place[second as usize]);
        match link {
            Link::Depends => links[second as usize].depends_on.push(first),
            Link::After => links[second as usize].after.push(first),
            Link::Notify => links[first as usize].notify.push(second),
        }
    }
    for links in &mut links {
        for list in [&mut links.depends_on, &mut links.after, &mut links.notify] {
            list.sort_unstable();
            list.dedup();
        }
    }
    Ok(Plan { order, links })
}

/// A cycle among the nodes that still wait: every one of them waits for another, so walking back must meet one twice.
fn find_cycle(edges: &[Edge], waits: &[u32]) -> Cycle {
    let mut before: BTreeMap<u32, u32> = BTreeMap::new();
    for &(first, second, _) in edges {
        if waits[first as usize] > 0 && waits[second as usize] > 0 {
            let known = before.entry(second).or_insert(first);
            *known = first.min(*known);
        }
    }
    let (mut path, mut seen) = (Vec::new(), BTreeSet::new());
    let mut node = before.keys().next().copied().unwrap_or_default();
    while seen.insert(node) {
        path.push(node);
        node = before.get(&node).copied().unwrap_or(node);
    }
    let mut cycle = path.split_off(path.iter().position(|&known| known == node).unwrap_or_default());
    cycle.reverse();
    let first = cycle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
    cycle.rotate_left(first);
    Cycle(cycle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn declared_order_is_kept_where_nothing_says_otherwise() {
        assert_eq!(plan(4, &[]).unwrap().order, [0, 1, 2, 3]);
        assert_eq!(plan(4, &[(3, 0, Link::Depends)]).unwrap().order, [1, 2, 3, 0]);
        assert_eq!(plan(0, &[]).unwrap(), Plan::default());
    }

    #[test]
    fn links_speak_of_places_in_the_order() {
        let plan = plan(3, &[(2, 0, Link::Depends), (2, 0, Link::Depends), (0, 1, Link::Notify), (2, 1, Link::After)])
            .unwrap();
        assert_eq!(plan.order, [2, 0, 1]);
        assert_eq!(plan.links[1].depends_on, [0]);
        assert_eq!((plan.links[1].notify.as_slice(), plan.links[2].after.as_slice()), (&[2][..], &[0][..]));
    }

    #[test]
    fn a_cycle_is_a_path_from_its_first_member() {
        let edges = [(0, 1, Link::Depends), (3, 2, Link::After), (1, 3, Link::Depends), (2, 1, Link::Notify)];
        assert_eq!(plan(4, &edges), Err(Cycle(vec![1, 3, 2])));
        assert_eq!(plan(2, &[(1, 1, Link::Depends)]), Err(Cycle(vec![1])));
    }

    proptest! {
        #[test]
        fn every_edge_is_kept_and_every_cycle_is_one_law(edges in proptest::collection::vec((0u32..12, 0u32..12), 0..24)) {
            let edges: Vec<Edge> = edges.into_iter().map(|(a, b)| (a, b, Link::Depends)).collect();
            let mut backwards = edges.clone();
            backwards.reverse();
            let result = plan(12, &edges);
            prop_assert_eq!(&result, &plan(12, &backwards));
            match result {
                Ok(plan) => {
                    let place = |node: u32| plan.order.iter().position(|&n| n == node).unwrap();
                    prop_assert!(edges.iter().all(|&(a, b, _)| place(a) < place(b)));
                }
                Err(Cycle(nodes)) => {
                    for (at, &node) in nodes.iter().enumerate() {
                        let next = nodes[(at + 1) % nodes.len()];
                        prop_assert!(edges.iter().any(|&(a, b, _)| (a, b) == (node, next)));
                    }
                }
            }
        }
    }
}

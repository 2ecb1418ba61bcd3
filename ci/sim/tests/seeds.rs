//! Seeds that failed once. They stay, whatever else is run.

use vigo_sim::{Config, run};

/// Seed, agents, and what it showed.
const SEEDS: &[(u64, usize, &str)] = &[
    (177, 20, "a gap that grew over a run which the server had broke the chain"),
    (432, 20, "a gap grew over sequences that only the server had"),
    (455, 20, "a gap joined sent and unsent runs and was taken for a fork"),
    (864, 20, "as 177"),
    (942, 20, "as 432"),
    (949, 20, "as 455, with a store that was set back by a crash"),
    (2096, 20, "a new epoch that a full disk refused was not tried again while every agent held its channel"),
    (29, 200, "as 177, in the urgent lane"),
];

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, agents, showed) in SEEDS {
        let outcome = run(Config { seed: *seed, agents: *agents, bug: None });
        assert!(outcome.violations.is_empty(), "seed {seed} of {agents} agents ({showed}): {:?}", outcome.violations);
    }
}

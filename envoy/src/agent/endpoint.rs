//! Which server is next: a pure function (state, event) -> (state, action).
//!
//! It stays on the one that works. After a failure it takes the next in the list, wrapping around, at once; after a whole
//! round of failures it asks for a pause. So every server is tried in every round, and none twice.

use common::limits::SERVERS_MAX;

/// The list and the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `host:port`, without repetition, at most [`SERVERS_MAX`].
    list: Vec<String>,
    /// The one to try, or that works.
    at: usize,
    /// Failures since the last success or pause.
    n_failed: usize,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointEvent {
    /// The one at hand could not be used.
    Failed,
    /// It could.
    Worked,
    /// There is another list.
    List(Vec<String>),
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointAction {
    /// Use, or go on using, the one at hand.
    Stay,
    /// Try the next at once.
    Next,
    /// All have failed: pause, then try the next.
    Pause,
}

impl Endpoints {
    /// Begins with the first of the list, or with `last_good` when it is in it.
    pub fn new(list: Vec<String>, last_good: Option<&str>) -> Endpoints {
        let list = tidy(list);
        let at = list.iter().position(|server| Some(&server[..]) == last_good).unwrap_or(0);
        Endpoints { list, at, n_failed: 0 }
    }

    /// The one to try, or that works; `None` for an empty list.
    pub fn current(&self) -> Option<&str> {
        self.list.get(self.at).map(String::as_str)
    }

    /// In order of the list.
    pub fn list(&self) -> &[String] {
        &self.list
    }

    /// The next state, and what follows.
    pub fn decide(&self, event: EndpointEvent) -> (Endpoints, EndpointAction) {
        let mut next = self.clone();
        let action = match event {
            EndpointEvent::Worked => {
                next.n_failed = 0;
                EndpointAction::Stay
            }
            EndpointEvent::Failed => {
                next.at = (self.at + 1) % self.list.len().max(1);
                next.n_failed += 1;
                if next.n_failed < self.list.len() {
                    EndpointAction::Next
                } else {
                    next.n_failed = 0;
                    EndpointAction::Pause
                }
            }
            EndpointEvent::List(list) => {
                let list = tidy(list);
                if list == self.list {
                    return (next, EndpointAction::Stay);
                }
                next = Endpoints::new(list, self.current());
                if next.current() == self.current() { EndpointAction::Stay } else { EndpointAction::Next }
            }
        };
        (next, action)
    }
}

fn tidy(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(list.len().min(SERVERS_MAX));
    for server in list {
        if out.len() < SERVERS_MAX && !server.is_empty() && !out.contains(&server) {
            out.push(server);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("s{i}:1530")).collect()
    }

    /// Every sequence of events up to length 8 on every list up to 4: 4 x 3^8 walks.
    #[test]
    fn every_server_is_tried_in_every_round_law() {
        for n in 1..=4 {
            for mut walk in 0..3usize.pow(8) {
                let (mut state, mut failed) = (Endpoints::new(list(n), None), Vec::new());
                for _ in 0..8 {
                    let before = state.current().map(str::to_owned);
                    let event = match walk % 3 {
                        0 => EndpointEvent::Failed,
                        1 => EndpointEvent::Worked,
                        _ => EndpointEvent::List(list(n)),
                    };
                    walk /= 3;
                    let (next, action) = state.decide(event.clone());
                    match event {
                        EndpointEvent::Failed => {
                            failed.extend(before.clone());
                            assert_eq!(action == EndpointAction::Pause, failed.len() == n);
                            assert!(n == 1 || next.current() != before.as_deref());
                            if action == EndpointAction::Pause {
                                failed.sort();
                                assert_eq!(failed, list(n), "a round tries each once");
                                failed.clear();
                            }
                        }
                        EndpointEvent::Worked => {
                            assert_eq!((next.current(), action), (before.as_deref(), EndpointAction::Stay));
                            failed.clear();
                        }
                        EndpointEvent::List(_) => assert_eq!((&next, action), (&state, EndpointAction::Stay)),
                    }
                    state = next;
                }
            }
        }
    }

    #[test]
    fn another_list_keeps_the_one_that_works() {
        let state = Endpoints::new(list(3), Some("s1:1530"));
        let (kept, action) = state.decide(EndpointEvent::List(vec!["x:1".into(), "s1:1530".into(), "x:1".into()]));
        assert_eq!((kept.current(), kept.list().len(), action), (Some("s1:1530"), 2, EndpointAction::Stay));
        let (moved, action) = kept.decide(EndpointEvent::List(vec!["y:1".into()]));
        assert_eq!((moved.current(), action), (Some("y:1"), EndpointAction::Next));
        let (none, action) = moved.decide(EndpointEvent::List(Vec::new()));
        assert_eq!((none.current(), action), (None, EndpointAction::Next));
        assert_eq!(none.decide(EndpointEvent::Failed).1, EndpointAction::Pause);
        let many = Endpoints::new(list(100), None);
        assert_eq!(many.list().len(), SERVERS_MAX);
    }
}

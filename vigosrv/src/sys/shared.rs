//! Work on many small things, shared among a few threads. The result does not depend on how many there are.

/// Threads that work together.
const THREADS_MAX: usize = 8;
/// Fewer things than this are not worth a thread.
const SHARED_MIN: usize = 128;
/// Parts for each thread: some are more work than others.
const PARTS_EACH: usize = 16;

/// Does something with each, in order. `worker` is made once for every part.
pub(crate) fn each<'i, I: Sync, O: Send, W: FnMut(&'i I) -> O>(
    items: &'i [I],
    worker: impl Fn() -> W + Sync,
) -> Vec<O> {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let do_part = |part: &'i [I]| part.iter().map(worker()).collect::<Vec<O>>();
    if n_threads == 1 || items.len() < SHARED_MIN {
        return do_part(items);
    }
    let parts: Vec<&[I]> = items.chunks(items.len().div_ceil(n_threads * PARTS_EACH)).collect();
    let mut done: Vec<Option<Vec<O>>> = parts.iter().map(|_| None).collect();
    let (do_part, parts_of) = (&do_part, &parts);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|first| {
                scope.spawn(move || {
                    let own = (first..parts_of.len()).step_by(n_threads);
                    own.map(|at| (at, do_part(parts_of[at]))).collect::<Vec<_>>()
                })
            })
            .collect();
        // What a thread has not done, because it failed, which is a defect, is done below.
        for (at, outcome) in threads.into_iter().filter_map(|thread| thread.join().ok()).flatten() {
            done[at] = Some(outcome);
        }
    });
    done.into_iter().zip(parts).flat_map(|(done, part)| done.unwrap_or_else(|| do_part(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_things() {
        for n in [0, 1, SHARED_MIN - 1, SHARED_MIN, 1_000, 1_001] {
            let items: Vec<usize> = (0..n).collect();
            assert_eq!(each(&items, || |item: &usize| item * 3), items.iter().map(|item| item * 3).collect::<Vec<_>>());
        }
    }
}

//! Side by side what may be, and apart what must not.

use std::collections::HashSet;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Does `work` for each item, at most `most` at a time, and never at the same time for two that
/// share a key. They begin in their order as far as that allows. The first failure ends it.
pub(super) async fn apart<T, E, F>(
    items: Vec<(Vec<u32>, T)>,
    most: usize,
    work: impl Fn(T) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut waiting = items;
    let mut running = FuturesUnordered::new();
    let mut taken: HashSet<u32> = HashSet::new();
    loop {
        let mut at = 0;
        while running.len() < most.max(1) && at < waiting.len() {
            if waiting[at].0.iter().any(|key| taken.contains(key)) {
                at += 1;
                continue;
            }
            let (keys, item) = waiting.remove(at);
            taken.extend(&keys);
            let working = work(item);
            running.push(async move { (keys, working.await) });
        }
        let Some((keys, done)) = running.next().await else {
            return Ok(());
        };
        done?;
        for key in keys {
            taken.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    /// What was seen: how many at once at most, and what was done.
    async fn run(items: Vec<Vec<u32>>, most: usize) -> (usize, Vec<usize>) {
        let under_way: Mutex<Vec<Vec<u32>>> = Mutex::default();
        let (peak, done) = (Mutex::new(0), Mutex::new(Vec::new()));
        let numbered = items.into_iter().enumerate();
        let items = numbered.map(|(number, keys)| (keys.clone(), (number, keys))).collect();
        let work = async |(number, keys): (usize, Vec<u32>)| {
            {
                let mut under_way = under_way.lock();
                assert!(under_way.iter().flatten().all(|key| !keys.contains(key)), "{keys:?}");
                under_way.push(keys.clone());
                let mut peak = peak.lock();
                *peak = under_way.len().max(*peak);
            }
            for _ in 0..number % 3 + 1 {
                tokio::task::yield_now().await;
            }
            let mut under_way = under_way.lock();
            let at = under_way.iter().position(|other| *other == keys).unwrap();
            under_way.remove(at);
            done.lock().push(number);
            Ok::<_, ()>(())
        };
        apart(items, most, work).await.unwrap();
        (peak.into_inner(), done.into_inner())
    }

    #[tokio::test]
    async fn as_many_as_may_be_and_no_more() {
        assert_eq!(run(vec![vec![1, 2], vec![3, 4], vec![5, 6], vec![7]], 3).await.0, 3);
        assert_eq!(run(vec![vec![1, 2], vec![2, 3], vec![3, 1]], 3).await, (1, vec![0, 1, 2]));
        // The second waits for the first, and the third does not.
        assert_eq!(run(vec![vec![1, 2], vec![2, 1], vec![3]], 2).await.0, 2);
    }

    #[tokio::test]
    async fn a_failure_ends_it() {
        let begun = Mutex::new(0);
        let work = async |item: u32| {
            *begun.lock() += 1;
            if item == 1 { Err("no") } else { Ok(()) }
        };
        let items = (0..10).map(|item| (vec![0], item)).collect();
        assert_eq!(apart(items, 4, work).await, Err("no"));
        assert_eq!(*begun.lock(), 2);
    }

    proptest! {
        #[test]
        fn each_is_done_once(
            items in prop::collection::vec(prop::collection::vec(0..6_u32, 0..3), 0..30),
            most in 1..5_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let count = items.len();
            let (peak, mut done) = runtime.block_on(run(items, most));
            done.sort_unstable();
            prop_assert!(peak <= most);
            prop_assert_eq!(done, (0..count).collect::<Vec<_>>());
        }
    }
}

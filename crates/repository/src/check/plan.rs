//! Which packs a check reads, and in which order.

use std::time::Duration;

use lifeboat_core::Timestamp;

use super::report::{Budget, Sample, SampleSize};
use crate::id::ObjectId;

/// A pack, as far as a plan needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) id: ObjectId,
    pub(super) size: u64,
}

/// Bytes of all of them.
pub(super) fn total(packs: &[Candidate]) -> u64 {
    packs.iter().map(|pack| pack.size).sum()
}

const DAY: Duration = Duration::from_hours(24);

/// Draws packs so that every byte has the same chance, whatever the size of its pack: each pack
/// has. Packs are put into an order by size (roughly) and by chance, and every n-th is taken, from
/// a start that chance decides; so the sample also has about as many bytes as were asked for.
pub(super) fn draw(mut packs: Vec<Candidate>, sample: &Sample, seed: u64) -> Vec<Candidate> {
    let all = total(&packs) as f64;
    let share = match sample.size {
        SampleSize::PartsPerMillion(parts) => f64::from(parts) / 1e6,
        SampleSize::Bytes(bytes) => bytes as f64 / all.max(1.0),
    };
    // A sample without a pack would say nothing.
    let share = share.clamp(1.0 / packs.len().max(1) as f64, 1.0);
    packs.sort_by_cached_key(|pack| (pack.size.max(1).ilog2(), lot(seed, pack.id.as_bytes())));
    let mut sum = fraction(lot(seed, b"start"));
    packs.retain(|_| {
        sum += share;
        let taken = sum >= 1.0;
        sum -= f64::from(u8::from(taken));
        taken
    });
    // One after the other as chance decides, so that a check that is stopped is a sample as well.
    packs.sort_by_cached_key(|pack| lot(seed ^ 1, pack.id.as_bytes()));
    packs
}

/// A number that depends on nothing but the seed and the name.
fn lot(seed: u64, name: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(name);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

fn fraction(lot: u64) -> f64 {
    (lot >> 11) as f64 / (1_u64 << 53) as f64
}

/// What a run of a rolling check has before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    /// The packs in the order in which they are read: the least recently read ones first.
    pub(super) packs: Vec<Candidate>,
    /// How many of them were never read.
    pub(super) never: u64,
    /// How many bytes this run reads at most.
    pub(super) bytes: Option<u64>,
    /// How many bytes must be read in this run, so that all are read in the time asked for.
    pub(super) share: Option<u64>,
    /// The time since the run before; a day when there was none.
    pub(super) interval: Duration,
}

impl Round {
    /// Plans a run. `read` says when a pack was found sound last; one without such a time comes
    /// first.
    pub(super) fn plan(
        mut packs: Vec<Candidate>,
        budget: &Budget,
        read: impl Fn(&ObjectId) -> Option<Timestamp>,
        interval: Option<Duration>,
    ) -> Self {
        packs.sort_by_cached_key(|pack| (read(&pack.id), pack.id));
        let never = packs.iter().take_while(|pack| read(&pack.id).is_none()).count() as u64;
        let interval = interval.unwrap_or(DAY).max(Duration::from_secs(1));
        let share = budget.within.map(|within| {
            let part = interval.as_secs_f64() / within.as_secs_f64().max(1.0);
            (total(&packs) as f64 * part.min(1.0)).ceil() as u64
        });
        // Without a limit of its own a run reads what it must.
        let bytes = match (budget.bytes, budget.duration) {
            (None, None) => share,
            (bytes, _) => bytes,
        };
        Self { packs, never, bytes, share, interval }
    }

    /// In which time everything is read when each run reads `bytes` as this one did.
    pub(super) fn pace(&self, bytes: u64) -> Option<Duration> {
        let runs = total(&self.packs) as f64 / (bytes as f64);
        Duration::try_from_secs_f64(runs * self.interval.as_secs_f64()).ok()
    }
}

/// The packs of today, for who holds no key and so can note nothing: each pack has a day in a round
/// of as many days as it takes.
pub(super) fn of_today(
    mut packs: Vec<Candidate>,
    budget: &Budget,
    now: Timestamp,
) -> Vec<Candidate> {
    let days = match (budget.within, budget.bytes) {
        (Some(within), _) => (within.as_secs() / DAY.as_secs()).max(1),
        (None, Some(bytes)) => total(&packs).div_ceil(bytes.max(1)).max(1),
        (None, None) => 1,
    };
    let today = now.as_second().unsigned_abs() / DAY.as_secs() % days;
    packs.retain(|pack| {
        let mut first = [0; 8];
        first.copy_from_slice(&pack.id.as_bytes()[..8]);
        u64::from_le_bytes(first) % days == today
    });
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn packs(sizes: &[u64]) -> Vec<Candidate> {
        let id = |number: usize| ObjectId::of(&number.to_le_bytes());
        sizes.iter().enumerate().map(|(at, size)| Candidate { id: id(at), size: *size }).collect()
    }

    #[test]
    fn every_byte_has_the_same_chance_and_a_seed_draws_the_same_again() {
        let sizes: Vec<_> = (0..40).map(|at| if at % 4 == 0 { 1000 } else { 16_000_000 }).collect();
        let all = packs(&sizes);
        let sample = Sample { size: SampleSize::PartsPerMillion(200_000), seed: None };
        let mut drawn: HashMap<ObjectId, u32> = HashMap::new();
        for seed in 0..2000 {
            let one = draw(all.clone(), &sample, seed);
            assert_eq!(one, draw(all.clone(), &sample, seed));
            let share = total(&one) as f64 / total(&all) as f64;
            assert!((0.1..0.3).contains(&share), "seed {seed}: {share}");
            one.iter().for_each(|pack| *drawn.entry(pack.id).or_default() += 1);
        }
        // A fifth of 2000, give or take five times what chance explains.
        for pack in &all {
            let count = drawn[&pack.id];
            assert!((310..490).contains(&count), "{count} of a pack of {} bytes", pack.size);
        }
        let few = Sample { size: SampleSize::Bytes(1), seed: None };
        assert_eq!(draw(all.clone(), &few, 7).len(), 1);
        let more = Sample { size: SampleSize::Bytes(u64::MAX), seed: None };
        assert_eq!(draw(all, &more, 7).len(), 40);
        assert!(draw(Vec::new(), &more, 7).is_empty());
    }

    #[test]
    fn the_least_recently_read_come_first_and_the_share_follows_the_time() {
        let all = packs(&[100; 30]);
        let at = |second| Timestamp::from_second(second).unwrap();
        let read = all.iter().skip(10).zip((0..20).rev());
        let read: HashMap<_, _> = read.map(|(pack, second)| (pack.id, at(second))).collect();
        let budget = Budget { within: Some(30 * DAY), ..Budget::default() };
        let when = |id: &ObjectId| read.get(id).copied();
        let round = Round::plan(all.clone(), &budget, when, None);
        assert_eq!((round.never, round.share, round.bytes), (10, Some(100), Some(100)));
        let times: Vec<_> = round.packs.iter().map(|pack| when(&pack.id)).collect();
        assert!(times.is_sorted() && times[9].is_none() && times[10] == Some(at(0)));
        assert_eq!(round.pace(100), Some(30 * DAY));
        assert_eq!(round.pace(75), Some(40 * DAY));
        assert_eq!(round.pace(0), None);
        // A night was missed.
        let late = Round::plan(all.clone(), &budget, when, Some(2 * DAY));
        assert_eq!((late.share, late.pace(100)), (Some(200), Some(60 * DAY)));
        let limited = Budget { bytes: Some(50), ..budget };
        assert_eq!(Round::plan(all, &limited, when, None).bytes, Some(50));
    }

    #[test]
    fn without_a_key_each_pack_has_its_day() {
        let all = packs(&[100; 500]);
        let budget = Budget { within: Some(30 * DAY), ..Budget::default() };
        let mut met = HashSet::new();
        for day in 0..30 {
            let now = Timestamp::from_second(day * 86_400 + 3600).unwrap();
            let today = of_today(all.clone(), &budget, now);
            assert!((4..40).contains(&today.len()), "{}", today.len());
            assert!(today.iter().all(|pack| met.insert(pack.id)));
        }
        assert_eq!(met.len(), all.len());
        let budget = Budget { bytes: Some(25_000), ..Budget::default() };
        let now = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        let both =
            of_today(all.clone(), &budget, now(1)).len() + of_today(all, &budget, now(2)).len();
        assert_eq!(both, 500);
    }
}

//! Keeping a repository in order while others use it: sessions, marks, and what deletes.
//!
//! Writers, readers and whoever deletes work at the same time and take no lock. What makes that
//! safe is an order in which each looks and acts:
//!
//! **A writer**
//! 1. publishes a *session*, and says now and then that it is alive;
//! 2. then reads the *marks*, and then the index. What lives only in marked packs it stores again;
//! 3. notes the packs on which its snapshot relies;
//! 4. before it commits, sees that its session still stands, reads marks and index again, and
//!    stores again whatever lives only in packs that were marked meanwhile;
//! 5. writes the snapshot's root;
//! 6. does 4 once more, before anybody is told that the backup is done, until its session stood
//!    all the while. Then it ends the session.
//!
//! **A sweeper**
//! 1. takes away the sessions that have shown no life for long;
//! 2. waits with every mark that is not younger than every session that is left;
//! 3. then reads all snapshots, and keeps each marked pack that one of them needs: it is rescued;
//! 4. takes the other marked packs out of the index, and only then deletes them.
//!
//! # Why no committed snapshot loses a chunk
//!
//! Let a snapshot rely on a pack that is deleted. Its writer read the marks for the last time
//! before it committed (4), and did not see the mark, or it would not rely on the pack; so the
//! mark came after that reading, when the session stood already. The sweeper looked at sessions
//! after the mark was made. If the session was there, it waited (2). If the writer had ended it, its
//! snapshot was there before, and the sweeper read it afterwards (3): the pack was rescued. That
//! leaves a session that the sweeper itself took away (1). It did so before it read the snapshots;
//! so either the snapshot was there by then, and the pack was rescued, or the root was written
//! later, and the writer found its session gone (6), and stored again what was missing, or failed
//! aloud, before anybody was told. No clock is part of this argument: times only decide how long
//! is waited.
//!
//! What it takes from the store: an object that was written is in every listing that begins later
//! (Amazon S3 and the other large stores have promised this since 2020, and file systems always).
//!
//! # Where listings are behind
//!
//! A store may break that: its listings lack what was written, or show what was deleted, not long
//! ago. Let them be behind by no more than half of the time for which marked packs wait (a day,
//! unless told otherwise). Then nothing is lost either, by another argument, which needs no
//! sessions. The writer's last look (6) came after its root was there. Of a pack on which it relies
//! it saw no mark; so there was none, or it was made less than that half before. Whoever deletes the
//! pack waits the whole time after the mark; so his listing of roots comes more than that half after
//! the root, and has it.
//!
//! That is about marks and roots. Where anything else depends on what a listing lacks or shows, the
//! objects are asked for one by one, since of a single object every store knows whether it is
//! there: a pack that is to leave the index because it is gone; the pack that keeps what a marked
//! one has as well; the marks of what is to be deleted; the lease; what a writer relies on that was
//! taken for dead.
//!
//! # Clocks
//!
//! Ages are differences of times that the store gave, of which the newest belongs to an object
//! written for this purpose ([`StoreClock`]). A host whose clock is more than five minutes off
//! deletes nothing: one of the two clocks is wrong, and retention is judged by the host's.

mod clock;
mod lease;
mod prune;
mod references;
mod runs;
mod session;
mod trash;

pub(crate) use clock::StoreClock;
pub(crate) use lease::Lease;
pub use prune::{Alone, PackCount, PruneMode, PruneOptions, PruneReport, Reseal};
pub(crate) use session::Session;
pub(crate) use trash::Marks;
#[cfg(feature = "fuzzing")]
pub(crate) use {
    lease::LeaseRecord, references::fuzzing, session::SessionRecord, trash::TrashRecord,
};

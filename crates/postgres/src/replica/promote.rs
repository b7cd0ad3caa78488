//! A standby takes the primary's place.

use std::time::{Duration, Instant};

use lifeboat_core::{Context, Result};

use super::{ReplicaError, Role, ServerStatus};
use crate::connect::{ConnectOptions, Session, parsed};
use crate::error::Error;
use crate::lsn::Lsn;

/// Replaying that stands still for so long, with nothing coming, has come to its end.
const QUIET: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of the old primary's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fencing {
    /// Only what it says itself: it must answer that it takes no writes.
    #[default]
    Asked,
    /// Somebody says that nobody writes to it any more.
    SaidToBe,
}

/// How a standby is promoted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PromoteOptions {
    /// The standby.
    pub standby: ConnectOptions,
    /// The primary, to be asked how far it is and whether it takes writes.
    pub primary: Option<ConnectOptions>,
    /// What is known of the primary's writes.
    pub fencing: Fencing,
    /// How long the standby may take to catch up, and then to promote: each.
    pub patience: Duration,
}

impl PromoteOptions {
    /// This standby; everything else as usual: a minute of patience, and nobody says anything of the
    /// primary.
    pub fn new(standby: ConnectOptions) -> Self {
        Self {
            standby,
            primary: None,
            fencing: Fencing::default(),
            patience: Duration::from_mins(1),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Promoted {
    /// The server.
    pub server: String,
    /// Its new timeline.
    pub timeline: u32,
    /// The position at which it left the old one, or shortly after.
    pub at: Lsn,
    /// How long it took from the word to the first write that it would take.
    pub took: Duration,
}

/// Promotes a standby, when it is safe; it must have replayed
/// all that it has and all that the primary has, and the primary must take no writes, as it says itself
/// or as [`Fencing::SaidToBe`] says.
///
/// # Errors
/// [`ReplicaError`] when it is not safe, before anything was done; when a server cannot be asked.
pub async fn promote(options: &PromoteOptions, context: &Context) -> Result<Promoted> {
    let standby = Session::open(&options.standby).await?;
    let server = standby.target().to_owned();
    let status = ServerStatus::ask(&standby).await?;
    let Role::Standby { .. } = status.role else {
        return Err(ReplicaError::NoStandby { server }.into());
    };
    let known = match &options.primary {
        Some(primary) => Some(ServerStatus::of(primary).await),
        None => None,
    };
    let current = match (&known, options.fencing) {
        (Some(Ok(primary)), fencing) => {
            let own = status.system_id;
            let (name, other) = (primary.server.clone(), primary.system_id);
            if own != other {
                let primary = name;
                return Err(ReplicaError::OtherSystem { server, own, primary, other }.into());
            }
            match primary.role {
                Role::Primary { current } if fencing == Fencing::SaidToBe => Some((name, current)),
                Role::Primary { .. } => {
                    return Err(ReplicaError::PrimaryLives { server, primary: name }.into());
                }
                Role::Standby { replayed, .. } => Some((name, replayed)),
            }
        }
        (_, Fencing::SaidToBe) => None,
        (Some(Err(error)), Fencing::Asked) => {
            let why = error.to_string();
            return Err(ReplicaError::NotFenced { server, why }.into());
        }
        (None, Fencing::Asked) => {
            return Err(ReplicaError::NotFenced { server, why: String::new() }.into());
        }
    };
    caught_up(&standby, current, options.patience, context).await?;

    let begun = Instant::now();
    let seconds = i32::try_from(options.patience.as_secs()).unwrap_or(i32::MAX).max(1);
    let statement = "SELECT pg_promote(true, $1)";
    standby.one("promote the standby", statement, &[&seconds]).await?;
    loop {
        context.check()?;
        let status = ServerStatus::ask(&standby).await?;
        if let Role::Primary { current } = status.role {
            let (took, timeline) = (begun.elapsed(), status.timeline);
            return Ok(Promoted { server, timeline, at: current, took });
        }
        if begun.elapsed() > options.patience {
            let seconds = options.patience.as_secs();
            return Err(ReplicaError::NotPromoted { server, seconds }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the standby has replayed all that it has, and all that the primary has.
///
/// What was received may end within a record, when the primary died: then the rest is never replayed.
/// So it is enough that nothing comes any more and nothing was replayed for a while.
async fn caught_up(
    standby: &Session,
    primary: Option<(String, Lsn)>,
    patience: Duration,
    context: &Context,
) -> Result<()> {
    const WHAT: &str = "ask the standby how far it is";
    let begun = Instant::now();
    let (mut last, mut since) = (Lsn(0), Instant::now());
    loop {
        context.check()?;
        let statement = "SELECT coalesce(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::text, \
             coalesce(pg_last_wal_replay_lsn(), '0/0')::text, \
             pg_is_wal_replay_paused() OR EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
        let row = standby.one(WHAT, statement, &[]).await?;
        let received: Lsn = parsed(WHAT, row.try_get::<_, String>(0))?;
        let replayed: Lsn = parsed(WHAT, row.try_get::<_, String>(1))?;
        let goes_on: bool =
            row.try_get(2).map_err(|error| Error::Answer { what: WHAT, why: error.to_string() })?;
        if replayed > last || goes_on {
            (last, since) = (replayed, Instant::now());
        }
        let server = || standby.target().to_owned();
        let problem = if replayed < received && since.elapsed() < QUIET {
            ReplicaError::Replaying { server: server(), received, replayed }
        } else {
            match &primary {
                Some((name, current)) if replayed < *current => {
                    let (primary, current) = (name.clone(), *current);
                    ReplicaError::Behind { server: server(), primary, current, replayed }
                }
                _ => return Ok(()),
            }
        };
        if begun.elapsed() > patience {
            return Err(problem.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! A restored database takes the name of one that is there.
//!
//! Both names change in one transaction, or none does. The server changes the name of a database
//! only while nobody is in it; it locks the database first and then waits five seconds for those who
//! are in it to leave, while newcomers wait for the lock. So sessions that are ended meanwhile, by a
//! second session, cannot come back in between: when they connect again, it is to the other database.
//!
//! When the names cannot be changed, the database that was there goes on under its name, and the
//! restored one, which is complete and was checked, stays under its own: hours of work are not thrown
//! away because somebody looked in at the last moment.

use std::time::Duration;

use jiff::Timestamp;

use super::error::{DatabaseError, Result};
use super::name::{cut, identifier, literal};
use super::restore::{DatabaseRestoreOptions, Occupied, Others};
use super::target::{self, provisional};
use crate::connect::{Session, failed};

/// How long to wait for somebody who changes the database itself. Who connects meanwhile, waits too.
const LOCK_LIMIT: &str = "SET lock_timeout = '10s'";

/// How long sessions may take to leave that are about to, such as those of the restore itself; the
/// server gives them as long.
const LEAVING: Duration = Duration::from_secs(5);

/// So often are sessions looked at, or ended, while the names change.
const EVERY: Duration = Duration::from_millis(100);

/// The names that databases have, and will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The name that both want.
    pub(super) wanted: String,
    /// What the restored one is called until then.
    pub(super) restored: String,
    /// What the one that is there is called afterwards.
    pub(super) kept: String,
    /// What the restored one is called when the other has its name again.
    after: String,
}

impl Names {
    /// For the restored database, which takes this name now; no database is called as the other
    /// will be.
    pub(super) async fn free(
        admin: &Session,
        wanted: &str,
        restored: &str,
        occupied: Occupied,
    ) -> Result<Self> {
        let at = Timestamp::now().strftime("%Y%m%d_%H%M%S").to_string();
        let mut names = Self::new(wanted, restored, occupied, &at);
        let mut number = 1;
        while target::exists(admin, &names.kept).await? {
            number += 1;
            names = Self::new(wanted, restored, occupied, &format!("{at}_{number}"));
        }
        Ok(names)
    }

    fn new(wanted: &str, restored: &str, occupied: Occupied, at: &str) -> Self {
        let kept = match occupied {
            Occupied::Swap => cut(wanted, &format!("_before_{at}")),
            _ => provisional(wanted),
        };
        let after = cut(wanted, &format!("_after_{at}"));
        Self { wanted: wanted.to_owned(), restored: restored.to_owned(), kept, after }
    }

    /// The statements that change the names.
    pub(super) fn change(&self) -> String {
        exchange(&self.wanted, &self.kept, &self.restored)
    }

    /// The statements that change them back.
    pub(super) fn back(&self) -> String {
        exchange(&self.wanted, &self.after, &self.kept)
    }

    /// The statement that removes what was there before.
    pub(super) fn drop_kept(&self) -> String {
        format!("DROP DATABASE {}", identifier(&self.kept))
    }
}

/// One database leaves a name to another.
fn exchange(name: &str, leaves_as: &str, comes: &str) -> String {
    let [name, leaves_as, comes] = [name, leaves_as, comes].map(identifier);
    format!(
        "BEGIN; ALTER DATABASE {name} RENAME TO {leaves_as}; \
         ALTER DATABASE {comes} RENAME TO {name}; COMMIT"
    )
}

/// What stands in the way of a database that is to be replaced.
struct Use {
    template: bool,
    /// The connection itself goes to it.
    own: bool,
    sessions: i64,
    whose: Option<String>,
    /// How many transactions are prepared in it.
    prepared: i64,
    may_rename: bool,
    /// The roles whose sessions this one may not end.
    unending: Option<String>,
}

/// An error unless the database that is there can be replaced now.
async fn replaceable(admin: &Session, options: &DatabaseRestoreOptions) -> Result<()> {
    const WHAT: &str = "ask who uses the database";
    let database = options.into.clone();
    let row = admin
        .one(
            WHAT,
            "SELECT d.datistemplate, d.datname = current_database(), \
             (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid \
                AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'), \
             (SELECT string_agg(DISTINCT coalesce(nullif(a.application_name, ''), 'a program') \
                || ' as ' || coalesce(a.usename::text, 'nobody'), ', ') \
              FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid() \
                AND a.backend_type <> 'autovacuum worker'), \
             (SELECT count(*) FROM pg_prepared_xacts x WHERE x.database = d.datname), \
             pg_has_role(d.datdba, 'USAGE') AND (m.rolsuper OR m.rolcreatedb), \
             (SELECT string_agg(DISTINCT s.rolname::text, ', ') FROM pg_stat_activity a \
              JOIN pg_roles s ON s.oid = a.usesysid WHERE a.datid = d.oid AND NOT m.rolsuper \
                AND (s.rolsuper OR NOT (pg_has_role(s.oid, 'USAGE') \
                                        OR pg_has_role('pg_signal_backend', 'USAGE')))) \
             FROM pg_database d, pg_roles m \
             WHERE d.datname = $1::text::name AND m.rolname = current_user",
            &[&database],
        )
        .await?;
    let read = || -> Result<Use, tokio_postgres::Error> {
        Ok(Use {
            template: row.try_get(0)?,
            own: row.try_get(1)?,
            sessions: row.try_get(2)?,
            whose: row.try_get(3)?,
            prepared: row.try_get(4)?,
            may_rename: row.try_get(5)?,
            unending: row.try_get(6)?,
        })
    };
    let found = read().map_err(|error| failed(WHAT, error))?;
    let irreplaceable = |why: &str| {
        Err(DatabaseError::Irreplaceable { database: database.clone(), why: why.to_owned() })
    };
    if found.template {
        return irreplaceable("it is a template of new databases");
    }
    if found.own {
        let why = "the connection itself goes to it; connect to another, such as postgres";
        return irreplaceable(why);
    }
    if !found.may_rename {
        let why = "this role may not change its name: that takes its owner, with CREATEDB, or a \
                   superuser";
        return irreplaceable(why);
    }
    if found.prepared > 0 {
        let why = "it has prepared transactions (pg_prepared_xacts): end them in it with COMMIT \
                   PREPARED or ROLLBACK PREPARED";
        return irreplaceable(why);
    }
    if found.sessions > 0 && options.others == Others::Refuse {
        let count = found.sessions;
        let noun = if count == 1 { "session" } else { "sessions" };
        let sessions = format!("{count} {noun} ({})", found.whose.unwrap_or_default());
        return Err(DatabaseError::InUse { database, sessions });
    }
    if let Some(roles) = found.unending.filter(|_| options.others == Others::Disconnect) {
        let why = format!(
            "this role may not end the sessions of {roles}: GRANT pg_signal_backend to it (those \
             of a superuser only a superuser ends)"
        );
        return irreplaceable(&why);
    }
    Ok(())
}

/// An error unless the database that is there can be replaced, once sessions that leave have had their
/// time.
pub(super) async fn replaceable_soon(
    admin: &Session,
    options: &DatabaseRestoreOptions,
) -> Result<()> {
    let until = tokio::time::Instant::now() + LEAVING;
    loop {
        match replaceable(admin, options).await {
            Err(DatabaseError::InUse { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(EVERY).await;
            }
            done => return done,
        }
    }
}

/// The statement that ends all sessions of a database.
pub(super) fn end_sessions(database: &str) -> String {
    format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}",
        literal(database)
    )
}

/// Changes the names, and ends the sessions that are in the way when that was asked for. The result
/// is how many were ended.
pub(super) async fn change(
    admin: &Session,
    options: &DatabaseRestoreOptions,
    names: &Names,
) -> Result<usize> {
    let whole = |why: String| DatabaseError::NotSwapped {
        database: names.wanted.clone(),
        restored: names.restored.clone(),
        why,
        by_hand: names.change(),
    };
    let told = |error: DatabaseError| whole(lifeboat_core::Error::from(error).one_line());
    replaceable_soon(admin, options).await.map_err(told)?;
    admin.run("prepare the session", LOCK_LIMIT).await.map_err(|error| told(error.into()))?;
    let (changed, ended) = match options.others {
        Others::Refuse => (admin.client().batch_execute(&names.change()).await, 0),
        Others::Disconnect => {
            let second =
                Session::open(&options.connection).await.map_err(|error| told(error.into()))?;
            let changing = names.change();
            let mut changing = std::pin::pin!(admin.client().batch_execute(&changing));
            let mut ended = std::collections::BTreeSet::new();
            let changed = loop {
                tokio::select! {
                    biased;
                    changed = &mut changing => break changed,
                    () = tokio::time::sleep(EVERY) => {}
                }
                // What cannot be ended stays in the way, and the server says so.
                ended.extend(end(&second, names).await.unwrap_or_default());
            };
            (changed, ended.len())
        }
    };
    let Err(error) = changed else {
        return Ok(ended);
    };
    if !crate::error::ends_session(&error) {
        // The transaction is broken off; nothing of it is there.
        let _ = admin.run("roll back", "ROLLBACK").await;
        let error = failed("change the names", error);
        return Err(told(error.into()));
    }
    // The answer is lost, and with it whether they changed: the server knows.
    match is_there(options, &names.restored).await {
        Ok(false) => Ok(ended),
        Ok(true) => Err(whole("the server ended the session".to_owned())),
        Err(_) => Err(DatabaseError::SwapUnknown {
            database: names.wanted.clone(),
            restored: names.restored.clone(),
            kept: names.kept.clone(),
        }),
    }
}

/// Ends the sessions in both databases; the result is their processes.
async fn end(session: &Session, names: &Names) -> Result<Vec<i32>> {
    const WHAT: &str = "end the sessions";
    // What ends a session must not stand in the condition: the server may look at its parts in any
    // order, and end sessions that the other parts rule out.
    let query = "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a \
                 WHERE a.datname = ANY ($1::text[]::name[]) AND a.pid <> pg_backend_pid() \
                   AND a.backend_type <> 'autovacuum worker'";
    let both = vec![names.wanted.clone(), names.restored.clone()];
    let rows = session.all(WHAT, query, &[&both]).await?;
    let pid = |row: &tokio_postgres::Row| row.try_get(0);
    Ok(rows.iter().map(pid).collect::<Result<_, _>>().map_err(|error| failed(WHAT, error))?)
}

async fn is_there(options: &DatabaseRestoreOptions, database: &str) -> Result<bool> {
    let session = Session::open(&options.connection).await?;
    super::target::exists(&session, database).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_and_change_in_one_transaction() {
        let now = "20261122_064512";
        let names = Names::new("Shop", "x", Occupied::Swap, now);
        assert_eq!(names.kept, "Shop_before_20261122_064512");
        assert_eq!(
            names.change(),
            "BEGIN; ALTER DATABASE \"Shop\" RENAME TO \"Shop_before_20261122_064512\"; \
             ALTER DATABASE \"x\" RENAME TO \"Shop\"; COMMIT"
        );
        assert_eq!(
            names.back(),
            "BEGIN; ALTER DATABASE \"Shop\" RENAME TO \"Shop_after_20261122_064512\"; \
             ALTER DATABASE \"Shop_before_20261122_064512\" RENAME TO \"Shop\"; COMMIT"
        );
        let long = Names::new(&"ö".repeat(31), "x", Occupied::Swap, now);
        assert!(long.kept.len() <= 63 && long.kept.ends_with("ö_before_20261122_064512"));
        assert_eq!(end_sessions("a'b").matches("'a''b'").count(), 1);
    }
}

//! What a restored cluster is examined for.
//!
//! | check | how |
//! |---|---|
//! | the pages and rows of every table | `verify_heapam` of the extension amcheck: row headers, visibility, TOAST values; catalogs too |
//! | every B-tree index | `bt_index_check` with all rows of its table: order within, and nothing missing |
//! | every row of every table can be read | `count(*)`, which also says how many there are |
//! | every foreign key | rows that refer to nothing are counted: the server believes its constraints |
//! | what its owner expects | queries, with their expected results |
//!
//! Where the extension amcheck is not installed beside the server, that is said, and the rest is
//! done. Problems are counted and told, and never end the examination.

mod keys;
mod queries;
mod report;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;
use lifeboat_core::{Context, Result};
use parking_lot::Mutex;

pub use self::queries::ExpectedResult;
pub use self::report::{Counted, Examination, Problem};
use self::work::Work;
use crate::connect::Session;
use crate::scratch::ScratchServer;

/// How a cluster is examined.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExamineOptions {
    /// How many things are examined side by side; at least 1.
    pub jobs: usize,
    /// What its owner expects.
    pub queries: Vec<ExpectedResult>,
}

impl Default for ExamineOptions {
    fn default() -> Self {
        Self {
            jobs: std::thread::available_parallelism().map_or(2, usize::from),
            queries: Vec::new(),
        }
    }
}

/// Examines all databases of a restored cluster.
///
/// # Errors
/// When the server cannot be asked. What is wrong with the data is no error, but a [`Problem`].
pub async fn examine(
    server: &ScratchServer,
    options: &ExamineOptions,
    context: &Context,
) -> Result<Examination> {
    let report = Arc::new(Mutex::new(Examination::default()));
    let session = server.connect("template1").await?;
    let rows = session
        .all(
            "list the databases",
            "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1",
            &[],
        )
        .await?;
    drop(session);
    let databases: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for query in options.queries.iter().filter(|query| !databases.contains(&query.database)) {
        let what = "there is no such database".to_owned();
        let object = query.sql.clone();
        report.lock().problem(Problem { database: query.database.clone(), object, what });
    }
    for database in &databases {
        context.check()?;
        let session = server.connect(database).await?;
        let planned = work::plan(&session, database, &report).await?;
        let queries = options.queries.iter().filter(|query| query.database == *database);
        let work: VecDeque<_> =
            planned.into_iter().chain(queries.cloned().map(Work::Query)).collect();
        report.lock().databases += 1;
        let queue = Arc::new(Mutex::new(work));
        let mut sessions = vec![session];
        let wanted = options.jobs.clamp(1, 16).min(queue.lock().len());
        while sessions.len() < wanted {
            sessions.push(server.connect(database).await?);
        }
        let workers =
            sessions.iter().map(|session| drain(session, database, &queue, &report, context));
        try_join_all(workers).await?;
    }
    let mut found = std::mem::take(&mut *report.lock());
    found.counts.sort();
    found.problems.sort();
    Ok(found)
}

async fn drain(
    session: &Session,
    database: &str,
    queue: &Mutex<VecDeque<Work>>,
    report: &Mutex<Examination>,
    context: &Context,
) -> Result<()> {
    loop {
        context.check()?;
        let Some(work) = queue.lock().pop_front() else {
            return Ok(());
        };
        let done = work.run(session, database, report).await;
        // What the server says of one thing is a finding; without a server there are none.
        session.check()?;
        if let Err(error) = done {
            let what = work::said(&error);
            let (database, object) = (database.to_owned(), work.object());
            report.lock().problem(Problem { database, object, what });
        }
    }
}

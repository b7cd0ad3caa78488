//! Whether a server is the one that a snapshot is of.
//!
//! A server has no name of its own. Its data belongs to a history with a replication id, which it
//! keeps through a promotion (as its second id) and loses when it is started anew without its own
//! RDB. So another history alone says little, and so does another address: a server that has both is
//! taken for another one.

use lifeboat_core::{Baseline, Context, SnapshotInfo};

use super::facts;
use super::handshake::is_id;
use crate::connect::{Answer, ConnectOptions};

/// A server, as a snapshot tells of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Former<'a> {
    /// Which history of changes.
    pub(crate) replication_id: &'a str,
    /// Where it was reached.
    pub(crate) server: &'a str,
}

impl Former<'_> {
    /// Whether the server that is reached with `connection`, and now has the history `id`, is
    /// another one.
    pub(crate) async fn is_other(&self, id: &str, connection: &ConnectOptions) -> bool {
        self.replication_id != id
            && self.server != connection.target()
            && second_id(connection).await.as_deref() != Some(self.replication_id)
    }
}

/// The history that a server had before it was promoted; `None` when it does not say.
async fn second_id(connection: &ConnectOptions) -> Option<String> {
    let mut connection = connection.connect().await.ok()?;
    let question: [&[u8]; 2] = [b"INFO", b"replication"];
    let Answer::Text(text) = connection.ask("ask for the history", &question).await.ok()? else {
        return None;
    };
    let text = String::from_utf8(text).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("master_replid2:"))?.trim();
    (is_id(id) && id.bytes().any(|byte| byte != b'0')).then(|| id.to_owned())
}

/// Warns when the last snapshot of this name is of a cluster, and what is backed up now is one server.
/// Whether it was.
pub(crate) fn tell_of_cluster(since: &dyn Baseline, here: &str, context: &Context) -> bool {
    let since = since.snapshot();
    let is_cluster = since.facts.unsigned(facts::SHARDS).is_some();
    if is_cluster {
        warn(since, "of a cluster", &format!("one server, {here}"), context);
    }
    is_cluster
}

/// Warns when the last snapshot of this name is of a single server, or of a cluster that has no node in
/// common with these `members`.
pub(crate) fn tell_of_another_cluster(
    since: &dyn Baseline,
    members: &str,
    here: &str,
    context: &Context,
) {
    let since = since.snapshot();
    let this = format!("a cluster, that of {here}");
    if since.facts.unsigned(facts::SHARDS).is_none() {
        return warn(since, "of one server", &this, context);
    }
    let known = since.facts.text(facts::MEMBERS).unwrap_or_default();
    let mut both = known.split(' ').filter(|id| members.split(' ').any(|other| other == *id));
    if !known.is_empty() && both.next().is_none() {
        warn(since, "of another cluster", &this, context);
    }
}

fn warn(since: &SnapshotInfo, what: &str, this: &str, context: &Context) {
    let told = format!(
        "the last snapshot of this name, {}, is {what}, and this is {this}: `latest` means the new one from now on; if that is a mistake, forget it",
        since.id.short()
    );
    context.warn(&since.store.to_string(), told);
}

/// Warns when the last snapshot of this name is of another server: a mistyped address would else be
/// found out when the wrong data comes back.
pub(super) async fn tell_of_another(
    since: &dyn Baseline,
    id: &str,
    connection: &ConnectOptions,
    context: &Context,
) {
    if tell_of_cluster(since, &connection.target(), context) {
        return;
    }
    let since = since.snapshot();
    let known = |name: &str| since.facts.text(name).filter(|text| !text.is_empty());
    let (Some(replication_id), Some(server)) = (known(facts::REPLICATION_ID), known(facts::SERVER))
    else {
        return;
    };
    if (Former { replication_id, server }).is_other(id, connection).await {
        let what = format!("of another server, {server}");
        warn(since, &what, &connection.target(), context);
    }
}

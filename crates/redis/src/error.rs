//! What can go wrong with a Redis server, its snapshots and their restore.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use lifeboat_core::{ErrorKind, Failure};

use crate::rdb::RdbError;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The situations in which a snapshot or a restore ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the server cannot be understood.
    #[error("read the address of the server: {what}")]
    BadAddress {
        /// What is wrong with it. Never holds a password.
        what: String,
    },
    /// The address holds a password.
    #[error("the address of the server holds a password")]
    PasswordInAddress,
    /// A file that the connection needs cannot be used.
    #[error("read {}", path.display())]
    ConnectionFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up, or the server's certificate is not accepted.
    #[error("set up TLS with {target}")]
    Tls {
        /// The server.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// No connection could be made.
    #[error("connect to Redis at {target}")]
    Connect {
        /// The server.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// The server did not say anything for too long.
    #[error("{doing}: no answer from {target} within {seconds} s")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke.
    #[error("{doing}: the connection to {target} broke")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// User or password are wrong, or missing.
    #[error("log in to Redis at {target}: {answer}")]
    Login {
        /// The server.
        target: String,
        /// What the server said.
        answer: String,
    },
    /// The user lacks a right.
    #[error("{doing}: the user {user} may not: {answer}")]
    MayNot {
        /// What was being done.
        doing: &'static str,
        /// The user.
        user: String,
        /// What the server said.
        answer: String,
    },
    /// The server does not know, or does not offer, what a replica asks for.
    #[error("{doing}: the server at {target} does not offer it: {answer}")]
    NotOffered {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// What it said.
        answer: String,
    },
    /// The server cannot now: it loads its data, or lost its own primary.
    #[error("{doing}: the server at {target} cannot now: {answer}")]
    NotNow {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// What it said.
        answer: String,
    },
    /// The server answered with another error.
    #[error("{doing}: the server at {target} says: {answer}")]
    Answered {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// What it said.
        answer: String,
    },
    /// The server answered something that makes no sense.
    #[error("{doing}: the answer of {target} makes no sense: {what}")]
    Nonsense {
        /// What was being done.
        doing: &'static str,
        /// The server.
        target: String,
        /// What is wrong with it.
        what: String,
    },
    /// The snapshot that the server sent is damaged or not whole.
    #[error("the snapshot that {target} sent")]
    Received {
        /// The server.
        target: String,
        /// What is wrong with it.
        source: RdbError,
    },
    /// The operating system gives no random numbers.
    #[error("make an id: the operating system gives no random numbers")]
    NoRandomness,
    /// The password of the Sentinels is wrong, or missing.
    #[error("log in to the Sentinel at {target}: {answer}")]
    SentinelLogin {
        /// The Sentinel.
        target: String,
        /// What it said.
        answer: String,
    },
    /// A Sentinel does not watch the service.
    #[error("ask the Sentinel at {sentinel} where {service} is: it knows no such service")]
    UnknownService {
        /// The Sentinel.
        sentinel: String,
        /// The service.
        service: String,
    },
    /// A server is not what the Sentinels take it for.
    #[error("connect to Redis at {target}: it is not what the Sentinels take it for")]
    OtherRole {
        /// The server.
        target: String,
    },
    /// A thread of ours panicked.
    #[error("checking the snapshot panicked")]
    Panicked {
        /// With what.
        source: tokio::task::JoinError,
    },
    /// What a node says of its cluster makes no sense, or not all slots are served.
    #[error("the cluster, as {target} knows it: {what}")]
    NoCluster {
        /// The node.
        target: String,
        /// What is wrong.
        what: String,
    },
    /// Slots were moved, or a primary replaced, each time the cluster was read.
    #[error("back up the cluster of {target}: it changed each time it was read: {what}")]
    Moving {
        /// The node that was named.
        target: String,
        /// What changed the last time.
        what: String,
    },
    /// What came on the stream of changes is no command.
    #[error("the stream of changes holds \"{byte}\" at {position}, where that makes no command")]
    NoCommand {
        /// Where, in bytes of the server's history.
        position: u64,
        /// The byte, as text.
        byte: String,
    },
    /// The user may not write the keys.
    #[error("restore into {target}: the user may not: {answer}")]
    MayNotWrite {
        /// The server.
        target: String,
        /// What it said.
        answer: String,
    },
    /// A database that keys would go to cannot be selected.
    #[error("database {database} of {target} cannot be selected: {answer}")]
    NotSelected {
        /// The server.
        target: String,
        /// The number of its database.
        database: u64,
        /// What it said.
        answer: String,
    },
    /// What is to be restored into a server is no snapshot of one.
    #[error("restore into {target}: the snapshot holds {entry}, which is no part of one of Redis")]
    StrangeContent {
        /// The server.
        target: String,
        /// What it holds.
        entry: String,
    },
    /// The snapshot of a cluster lacks a shard that its map names.
    #[error(
        "restore to {target}: the snapshot holds no {entry}, which its map of the cluster names"
    )]
    MissingShard {
        /// The server, or the directory.
        target: String,
        /// What it lacks.
        entry: String,
    },
    /// The map in a snapshot of a cluster is none.
    #[error("restore to {target}: the snapshot's map of the cluster makes no sense: {what}")]
    BadMap {
        /// The server, or the directory.
        target: String,
        /// What is wrong with it.
        what: String,
    },
    /// The snapshot that goes into a server is damaged, or not fully understood.
    #[error("the snapshot that is restored into {target}")]
    Given {
        /// The server.
        target: String,
        /// What is wrong with it.
        source: RdbError,
    },
    /// The snapshot whose keys are listed is damaged, or not fully understood.
    #[error("list the keys of {target}")]
    Listed {
        /// The snapshot.
        target: String,
        /// What is wrong with it.
        source: RdbError,
    },
    /// Two databases would go into one, where their keys could meet.
    #[error("databases {one} and {other} cannot go into the same one in a file")]
    DatabasesClash {
        /// The number of one.
        one: u64,
        /// And of the other.
        other: u64,
    },
    /// An append-only file is not what a server writes.
    #[error("read {}: {what}", path.display())]
    AppendOnlyFile {
        /// The file or its directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The RDB at the beginning of append-only files is damaged, or not fully understood.
    #[error("read the RDB in {}", path.display())]
    AppendOnlyRdb {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RdbError,
    },
    /// The user may not read every key, where the server cannot be replicated.
    #[error("read the keys of {target} one by one: the user {user} may not: {answer}")]
    MayNotScan {
        /// The server.
        target: String,
        /// The user.
        user: String,
        /// What the server said.
        answer: String,
    },
    /// The names of keys do not fit in memory, and cannot be kept in a file.
    #[error("{doing} a file for the names of keys in {}", directory.display())]
    NamesFile {
        /// What was being done.
        doing: &'static str,
        /// Where.
        directory: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The reading was finished before all of it was read.
    #[error("the backup was ended before everything was read")]
    Unfinished,

    /// The file to restore to is there already.
    #[error("restore to {}: the file is there already", path.display())]
    TargetExists {
        /// The file.
        path: PathBuf,
    },
    /// The directory to restore to is not empty.
    #[error("restore to {}: there is something in it already: {found}", path.display())]
    TargetFilled {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A configuration gives a file a name that is none.
    #[error("read {}: \"{value}\" is no name for {name}", path.display())]
    BadName {
        /// The configuration.
        path: PathBuf,
        /// The setting.
        name: String,
        /// What it says.
        value: String,
    },
    /// The file to restore to is a directory.
    #[error("restore to {}: it is a directory", path.display())]
    TargetIsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A server would not read the restored file, but its append-only files.
    #[error("restore to {}: a server would not read it: {why}", path.display())]
    AppendOnly {
        /// The file.
        path: PathBuf,
        /// What says so.
        why: String,
    },
    /// The snapshot holds something that no snapshot of Redis holds.
    #[error("restore to {}: the snapshot holds {entry}, which is no part of one of Redis", path.display())]
    StrangeEntry {
        /// The file.
        path: PathBuf,
        /// What it holds.
        entry: String,
    },
    /// The snapshot lacks its data.
    #[error("restore to {}: the snapshot holds no dump.rdb", path.display())]
    NoDump {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What was restored is damaged.
    #[error("the snapshot restored to {}", path.display())]
    Restored {
        /// The file. It is removed again.
        path: PathBuf,
        /// What is wrong with it.
        source: RdbError,
    },
}

impl Failure for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadAddress { .. }
            | Self::PasswordInAddress
            | Self::BadName { .. }
            | Self::DatabasesClash { .. } => ErrorKind::InvalidInput,
            Self::ConnectionFile { source, .. }
            | Self::File { source, .. }
            | Self::NamesFile { source, .. }
            | Self::Connect { source, .. } => ErrorKind::of_io(source),
            Self::Login { .. }
            | Self::MayNot { .. }
            | Self::MayNotWrite { .. }
            | Self::MayNotScan { .. }
            | Self::NotSelected { .. }
            | Self::AppendOnly { .. }
            | Self::Answered { .. }
            | Self::UnknownService { .. }
            | Self::SentinelLogin { .. }
            | Self::Tls { .. } => ErrorKind::Refused,
            Self::NoAnswer { .. }
            | Self::Lost { .. }
            | Self::NotNow { .. }
            | Self::NoCluster { .. }
            | Self::OtherRole { .. }
            | Self::Moving { .. } => ErrorKind::Unavailable,
            Self::NotOffered { .. } => ErrorKind::Unsupported,
            Self::Nonsense { .. }
            | Self::NoCommand { .. }
            | Self::StrangeEntry { .. }
            | Self::StrangeContent { .. }
            | Self::Given { .. }
            | Self::Listed { .. }
            | Self::AppendOnlyFile { .. }
            | Self::AppendOnlyRdb { .. }
            | Self::NoDump { .. }
            | Self::MissingShard { .. }
            | Self::BadMap { .. }
            | Self::Restored { .. } => ErrorKind::Corrupt,
            // Cut off on its way: the next one may arrive.
            Self::Received { source: RdbError::Truncated { .. }, .. } => ErrorKind::Unavailable,
            Self::Received { .. } => ErrorKind::Corrupt,
            Self::Panicked { .. } | Self::Unfinished | Self::NoRandomness => ErrorKind::Other,
            Self::TargetExists { .. }
            | Self::TargetIsDirectory { .. }
            | Self::TargetFilled { .. } => ErrorKind::AlreadyExists,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::BadAddress { .. } => {
                "write redis://host:port, rediss://host:port for TLS, unix:///path/of/socket, or \
                 redis+sentinel://host:port,host:port/service"
                    .into()
            }
            Self::PasswordInAddress => {
                "others can see it there: put it into REDISCLI_AUTH, or into a file that \
                 --password-file names"
                    .into()
            }
            Self::ConnectionFile { .. } => "see that it is there and may be read".into(),
            Self::Tls { .. } => {
                "see that the server speaks TLS on this port, and name its authority with \
                 --tls-ca; where it wants a certificate of its clients, give --tls-cert and \
                 --tls-key"
                    .into()
            }
            Self::Connect { .. } => "see that it runs, and that this is its address".into(),
            Self::NoAnswer { .. } | Self::Lost { .. } => {
                "look into the server's log; it may be busy, or have given up on a replica that \
                 was too slow (repl-timeout, client-output-buffer-limit)"
                    .into()
            }
            Self::Login { .. } => {
                "put the password into REDISCLI_AUTH or into a file that --password-file names, \
                 and the user into the address: redis://user@host"
                    .into()
            }
            Self::MayNot { user, answer, .. }
                if ["cluster", "info"].iter().any(|word| answer.contains(word)) =>
            {
                format!(
                    "on all nodes, as an administrator: ACL SETUSER {user} +psync +replconf +info \
                     +cluster|nodes"
                )
                .into()
            }
            Self::MayNot { user, .. } => {
                format!("as an administrator: ACL SETUSER {user} +psync +replconf").into()
            }
            Self::AppendOnlyFile { .. } | Self::AppendOnlyRdb { .. } => {
                "name the directory with the manifest (appendonlydir), or before 7.0 the file; let \
                 redis-check-aof look at it; or back up the server over the network"
                    .into()
            }
            Self::MayNotScan { user, .. } => format!(
                "as an administrator: ACL SETUSER {user} ~* +info +select +scan +dump +pttl +time \
                 +multi +exec, and from 7.0 on +pexpiretime +function|dump"
            )
            .into(),
            Self::NamesFile { .. } => {
                "make room there, or name another directory with TMPDIR".into()
            }
            Self::NotOffered { .. } => {
                "managed services often block replication, and a proxy in front of a server \
                 cannot pass it on: name the server itself, or let its keys be read one by one \
                 (`lifeboat doctor redis` says what that takes)"
                    .into()
            }
            Self::NotNow { .. } => {
                "wait until it has its data (INFO persistence: loading:0; INFO replication: \
                 master_link_status:up), or name another server"
                    .into()
            }
            Self::Answered { .. } => "look into the server's log".into(),
            Self::Nonsense { .. } => "see that this is a Redis server, and not a proxy".into(),
            Self::NoCluster { target, .. } => {
                format!("look at `redis-cli --cluster check {target}`, and mend it first").into()
            }
            Self::Moving { .. } => {
                "wait until the resharding or failover is over (`redis-cli --cluster check`), and \
                 run the backup again"
                    .into()
            }
            Self::NoCommand { .. } => {
                "a new snapshot is taken; see that the server is one of Redis or Valkey, and that \
                 nothing between it and here changes what it sends"
                    .into()
            }
            Self::Received { .. } => {
                "run the backup again; if it stays, look into the server's log and let it check \
                 a file of its own: redis-check-rdb"
                    .into()
            }
            Self::UnknownService { sentinel, .. } => format!(
                "`redis-cli -u redis://{sentinel} SENTINEL MASTERS` lists those that it knows"
            )
            .into(),
            Self::SentinelLogin { .. } => {
                "Sentinels have a password of their own: put it into a file that \
                 --sentinel-password-file names"
                    .into()
            }
            Self::OtherRole { .. } => {
                "a failover is under way: try again when the Sentinels have noticed".into()
            }
            Self::NoRandomness => "see that /dev/urandom can be read".into(),
            Self::Panicked { .. } | Self::Unfinished => "please report it".into(),
            Self::TargetExists { .. } => {
                "move it away, or name a file that is not there yet".into()
            }
            Self::TargetFilled { .. } => {
                "name a directory that is empty, or not there yet; then let the server use it"
                    .into()
            }
            Self::BadName { .. } => "correct the configuration, or leave --redis-conf out".into(),
            Self::TargetIsDirectory { path } => {
                format!("name the file: {}", path.join("dump.rdb").display()).into()
            }
            Self::AppendOnly { .. } => {
                "set \"appendonly no\", start the server, and then `CONFIG SET appendonly yes`; \
                 --force writes the file all the same"
                    .into()
            }
            Self::MayNotWrite { .. } => {
                "as an administrator, for the keys to be restored: ACL SETUSER … ~* +restore \
                 +select +time +exists +function|restore"
                    .into()
            }
            Self::NotSelected { answer, .. } if answer.starts_with("NOPERM") => {
                "as an administrator: ACL SETUSER … +select; or let all go into database 0 with \
                 --db FROM=0"
                    .into()
            }
            Self::NotSelected { database, .. } => format!(
                "raise `databases` in the server's configuration above {database} and start it \
                 again, or let the keys go into another database with --db FROM=TO"
            )
            .into(),
            Self::Given { .. } => {
                "restore it to a file instead, for a server that understands all of it; \
                 `lifeboat verify --every-byte` looks for damage"
                    .into()
            }
            Self::Listed { .. } => {
                "`lifeboat verify --every-byte` looks for damage; what was listed so far is there"
                    .into()
            }
            Self::DatabasesClash { .. } => "restore each to a file of its own".into(),
            Self::StrangeEntry { .. }
            | Self::StrangeContent { .. }
            | Self::MissingShard { .. }
            | Self::BadMap { .. }
            | Self::NoDump { .. } => {
                "name another snapshot; `lifeboat snapshots` lists them".into()
            }
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room there, or restore to another place".into()
            }
            Self::File { .. } => "see that the directory is there and may be written".into(),
            Self::Restored { .. } => {
                "run `lifeboat verify --every-byte` on the repository, and restore an older \
                 snapshot"
                    .into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_worth_a_retry_and_what_is_damaged_is_not() {
        let received = |source| Error::Received { target: "x".into(), source };
        assert!(received(RdbError::Truncated { offset: 9 }).is_retryable());
        assert!(!received(RdbError::Checksum { written: 1, computed: 2 }).is_retryable());
        let login = Error::Login { target: "x".into(), answer: "NOAUTH".into() };
        assert!(!login.is_retryable());
    }
}

//! One server that is replaced.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryKind, EntryPath, Extent, Lane, Receipt, Writing,
};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::promotion::{Promotion, info};
use super::replica::Replica;
use super::{Holding, MasterError, MasterOptions};
use crate::checker::Checker;
use crate::connect::{Answer, Connection, Mode};
use crate::error::{Error, Result};
use crate::live::{Probed, probe, probe_name};
use crate::rdb::{Census, Dialect, RdbReader, ValueType};
use crate::recover::STREAM_FILE;
use crate::source::{DUMP, Info};
use crate::stream::Walker;

/// Between two looks at the server.
const PAUSE: Duration = Duration::from_millis(100);
/// When nothing is to be sent for so long, a sign of life is: servers give up after `repl-timeout`,
/// which is 60 s by default.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

pub(super) struct MasterWriting {
    options: Arc<MasterOptions>,
    context: Context,
    target: String,
    promotion: Promotion,
    state: Mutex<State>,
}

enum State {
    /// The connection by which the server is told what to do, and where it is to come to.
    Ready(Box<Connection>, TcpListener),
    /// It holds the snapshot, and takes changes.
    Holds(Box<Connection>, Box<Replica>),
    /// All of it was done, or something failed.
    Over(Option<Box<Connection>>),
}

/// Looks at the server, and listens for it.
pub(super) async fn begin(
    options: Arc<MasterOptions>,
    context: &Context,
) -> lifeboat_core::Result<MasterWriting> {
    let (control, keys) = look(&options).await?;
    let target = control.target().to_owned();
    let listener = bind(&options, &control, &target).await?;
    let promotion = Promotion::new(Arc::clone(&options), keys, context);
    let state = Mutex::new(State::Ready(Box::new(control), listener));
    Ok(MasterWriting { options, context: context.clone(), target, promotion, state })
}

/// Whether the server can be replaced; then how it is told to, and how many keys it holds.
pub(super) async fn look(options: &MasterOptions) -> lifeboat_core::Result<(Connection, u64)> {
    if options.connection.is_watched() {
        // They would take what becomes our replica for down, and promote another one.
        let (target, what) = (options.connection.target(), "watched by Sentinels");
        return Err(MasterError::Unfit { target, what }.into());
    }
    let mut control = options.connection.connect().await?;
    let target = control.target().to_owned();
    let unfit = |what| Err(MasterError::Unfit { target: target.clone(), what }.into());
    match control.hello().await?.mode {
        Mode::Cluster => return unfit("a node of a cluster"),
        Mode::Sentinel => return unfit("a Sentinel"),
        Mode::Standalone | Mode::Unknown => {}
    }
    let info = info(&mut control).await?;
    if info.text("role") != Some("master") {
        let part = |name| info.text(name).unwrap_or("?").to_owned();
        let primary = format!("{}:{}", part("master_host"), part("master_port"));
        return Err(MasterError::Replica { target, primary }.into());
    }
    if info.text("loading") == Some("1") {
        let answer = "it is loading its data".to_owned();
        return Err(Error::NotNow { doing: "replace the server", target, answer }.into());
    }
    let (keys, functions) =
        (info.keys().unwrap_or(0), info.number("number_of_libraries").unwrap_or(0));
    if keys + functions > 0 && options.holding == Holding::Refuse {
        return Err(MasterError::Holds { target, keys, functions }.into());
    }
    let asked: [&[u8]; 3] = [b"CONFIG", b"GET", b"tls-replication"];
    if let Answer::List(parts) = control.ask("ask how the server replicates", &asked).await?
        && parts.last() == Some(&Answer::Text(b"yes".to_vec()))
    {
        return Err(MasterError::Tls { target }.into());
    }
    Ok((control, keys))
}

/// Listens where the server is to come to.
async fn bind(
    options: &MasterOptions,
    control: &Connection,
    target: &str,
) -> Result<TcpListener, MasterError> {
    let ours = control.ends().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(ours, _)| ours.ip());
    let address = match &options.listen {
        None => SocketAddr::new(ours, 0).to_string(),
        Some(listen) => match listen.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, 0).to_string(),
            Err(_) => listen.clone(),
        },
    };
    let bound = TcpListener::bind(&address).await;
    bound.map_err(|source| MasterError::Listen { target: target.to_owned(), address, source })
}

impl MasterWriting {
    async fn take(&self, entry: Entry) -> lifeboat_core::Result<()> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let mut held = self.state.lock().await;
        let state = std::mem::replace(&mut *held, State::Over(None));
        *held = match state {
            State::Ready(control, listener) if path == DUMP && entry.kind == EntryKind::File => {
                let (control, replica) = self.replace(control, listener, entry).await?;
                State::Holds(control, replica)
            }
            State::Holds(control, mut replica) if path == STREAM_FILE => {
                self.replay(&mut replica, entry).await?;
                State::Over(Some(control))
            }
            _ => {
                let target = self.target.clone();
                return Err(Error::StrangeContent { target, entry: path }.into());
            }
        };
        Ok(())
    }

    /// Makes the server our replica, and gives it the RDB.
    async fn replace(
        &self,
        mut control: Box<Connection>,
        listener: TcpListener,
        mut entry: Entry,
    ) -> lifeboat_core::Result<(Box<Connection>, Box<Replica>)> {
        const SENDING: &str = "it was sent the data";
        let Some(first) = self.next(&mut entry).await? else {
            let (target, entry) = (self.target.clone(), "an empty dump.rdb".to_owned());
            return Err(Error::StrangeContent { target, entry }.into());
        };
        self.may_take(&mut control, &first).await?;
        let address = listener.local_addr().map_err(|source| MasterError::Listen {
            target: self.target.clone(),
            address: "the address that was given".to_owned(),
            source,
        })?;
        self.context.phase("wait for the server to come as a replica");
        // Of all addresses, the one from which the server is reached.
        let all = address.ip().is_unspecified();
        let host = match control.ends().filter(|_| all) {
            Some((ours, _)) => ours.ip(),
            None => address.ip(),
        };
        let (host, port) = (host.to_string(), address.port().to_string());
        self.promotion.owe();
        let words: [&[u8]; 3] = [b"REPLICAOF", host.as_bytes(), port.as_bytes()];
        control.demand("make the server our replica", &words).await?;
        let server = control.ends().map(|(_, server)| server.ip());
        // By another way it may come from another address.
        let from = server.filter(|_| self.options.listen.is_none());
        let patience = self.options.connection.patience;
        let accepting = Replica::accept(listener, from, &self.target, patience);
        let mut replica = Box::pin(accepting).await?;
        self.context.phase("send the data");
        let checker = Checker::start();
        let mut next = Some(first);
        while let Some(bytes) = next {
            checker.feed(bytes.clone()).await;
            replica.send(SENDING, &bytes).await?;
            replica.check(SENDING)?;
            next = self.next(&mut entry).await?;
        }
        // Until the end is said, the server keeps what it has.
        let target = self.target.clone();
        let outcome = checker.finish().await?.map_err(|source| Error::Given { target, source })?;
        if needs_modules(&outcome.census) && !has_modules(&mut control).await? {
            return Err(MasterError::NoModules { target: self.target.clone() }.into());
        }
        replica.end_data().await?;
        self.context.phase("wait for the server to load it");
        self.loaded(&mut control, &replica).await?;
        Ok((control, Box::new(replica)))
    }

    async fn next(&self, entry: &mut Entry) -> lifeboat_core::Result<Option<bytes::Bytes>> {
        match entry.content.next().await? {
            Some(Extent::Data(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
            Some(Extent::Unchanged(_) | Extent::Hole(_)) => {
                let target = self.target.clone();
                let entry = format!("a {} without its bytes", entry.path);
                Err(Error::StrangeContent { target, entry }.into())
            }
        }
    }

    /// Asks, before anything is changed, whether the server takes this version of the format.
    async fn may_take(&self, control: &mut Connection, first: &[u8]) -> lifeboat_core::Result<()> {
        let target = self.target.clone();
        let mut reader = RdbReader::new(first);
        let read = reader.next();
        let Some((dialect, version)) = reader.version() else {
            return match read {
                Err(source) => Err(Error::Given { target, source }.into()),
                Ok(_) => Err(Error::Unfinished.into()),
            };
        };
        let number = u16::try_from(version).unwrap_or(u16::MAX);
        match probe(control, &probe_name(), number).await? {
            Probed::Takes => Ok(()),
            Probed::TooNew => {
                let system = Dialect::as_str(dialect);
                Err(MasterError::TooNew { target, version, system }.into())
            }
            Probed::Elsewhere(_) => {
                Err(MasterError::Unfit { target, what: "a node of a cluster" }.into())
            }
        }
    }

    /// Waits until the server has loaded the RDB.
    async fn loaded(
        &self,
        control: &mut Connection,
        replica: &Replica,
    ) -> lifeboat_core::Result<()> {
        const LOADING: &str = "it loaded the data";
        let patience = self.options.connection.patience;
        let mut last = (String::new(), Instant::now());
        loop {
            let info = info(control).await?;
            if info.text("master_link_status") == Some("up") {
                return Ok(());
            }
            replica.check(LOADING)?;
            let now = progress(&info);
            if now != last.0 {
                last = (now, Instant::now());
            }
            if last.1.elapsed() >= patience && replica.silence() >= patience {
                return Err(replica.stuck(LOADING).into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends the changes behind the snapshot, and waits until they are carried out.
    async fn replay(&self, replica: &mut Replica, mut entry: Entry) -> lifeboat_core::Result<()> {
        const REPLAYING: &str = "it was sent the changes";
        self.context.phase("send the changes");
        let mut walker = Walker::new(0);
        loop {
            let bytes = match timeout(SIGN_OF_LIFE, self.next(&mut entry)).await {
                Ok(next) => next?,
                // Between two commands only: within one it would be taken for a part of it.
                Err(_) if walker.boundary() == walker.position() => Some(PING.into()),
                Err(_) => continue,
            };
            let Some(bytes) = bytes else { break };
            walker.feed(&bytes)?;
            replica.send(REPLAYING, &bytes).await?;
            replica.check(REPLAYING)?;
        }
        self.context.phase("wait for the changes to be carried out");
        replica.acknowledged("it carried out the changes", walker.position()).await?;
        Ok(())
    }
}

/// Whether what modules keep is in it.
fn needs_modules(census: &Census) -> bool {
    census.module_data > 0 || census.types.contains_key(&ValueType::Module)
}

/// Whether the server has any module. One that meets a value of a module that it lacks ends at once.
async fn has_modules(control: &mut Connection) -> Result<bool> {
    const ASKING: &str = "ask the server for its modules";
    match control.demand(ASKING, &[b"INFO", b"modules"]).await? {
        Answer::Text(text) => Ok(Info::parse(&text).text("module").is_some()),
        other => Err(control.nonsense(ASKING, format!("{other:?}"))),
    }
}

/// What changes while the server loads.
fn progress(info: &Info) -> String {
    let names = ["loading", "loading_loaded_bytes", "master_sync_in_progress", "used_memory"];
    names.map(|name| info.text(name).unwrap_or_default()).join(" ")
}

#[async_trait]
impl Writing for MasterWriting {
    /// The changes behind the snapshot.
    fn lane(&self, _path: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _ordinal: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Box::pin(self.take(entry)).await
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        let state = std::mem::replace(&mut *self.state.lock().await, State::Over(None));
        let (State::Holds(mut control, _) | State::Over(Some(mut control))) = state else {
            let (target, entry) = (self.target.clone(), "no dump.rdb".to_owned());
            return Err(Error::StrangeContent { target, entry }.into());
        };
        self.context.phase("make the server a primary again");
        let keys = self.promotion.promote(&mut control).await?;
        let told = format!("the server was replaced; it is a primary again, and holds {keys} keys");
        let facts =
            Attributes::new().with("redis.keys.held", keys).with("redis.note.replaced", told);
        Ok(Receipt { snapshot: None, facts })
    }

    async fn abort(self: Arc<Self>) {
        // What was sent last must not be taken for the rest.
        *self.state.lock().await = State::Over(None);
        self.promotion.undo().await;
    }
}

//! A network that fails in a chosen way: a TCP proxy on loopback.

pub mod http;
mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{Shutdown, listen, shutdown};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use self::pump::relay;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What goes wrong in one direction. Offsets are counted for each connection from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toxics {
    /// Each piece of up to 64 KiB arrives this much later.
    pub latency: Option<Duration>,
    /// And by a random part of this later still.
    pub jitter: Duration,
    /// No more than this many bytes pass in a second.
    pub rate: Option<u64>,
    /// Nothing passes, and nobody is told; what was held back passes when this is lifted.
    pub blackhole: bool,
    /// Both ends see a reset when this many bytes have passed.
    pub reset_after: Option<u64>,
    /// Both ends see a regular close when this many bytes have passed.
    pub truncate_after: Option<u64>,
    /// One bit, chosen by the seed, of the byte at this offset is wrong.
    pub flip_byte_at: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Weather {
    refuse: bool,
    to_server: Toxics,
    to_client: Toxics,
}

/// A TCP proxy in front of one server. Dropping it cuts every connection through it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Proxy {
    /// Starts a proxy on a free port, which passes everything on until told otherwise. The same
    /// seed makes the same random choices.
    pub fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let chosen = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = chosen.local_addr().context("ask for the proxy's port")?;
        // A socket keeps a port that it named itself while it does not listen.
        let socket = bind(address)?;
        let listener = socket.listen(128).context("listen")?;
        let (weather, forecast) = watch::channel(Weather::default());
        let connections = Arc::new(AtomicU64::new(0));
        let door = Door { upstream, seed, forecast, connections: connections.clone() };
        let task = tokio::spawn(async move {
            let kept = door.keep(listener).await;
            if let Err(error) = &kept {
                eprintln!("the proxy at {address} ended: {error:#}");
            }
            kept
        });
        Ok(Self { address, weather, connections, task })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Sets what goes wrong in one direction from now on, also for the connections there are.
    pub fn set(&self, direction: Direction, toxics: Toxics) {
        self.weather.send_modify(|weather| match direction {
            Direction::ToServer => weather.to_server = toxics,
            Direction::ToClient => weather.to_client = toxics,
        });
    }

    /// As if the server were down: connections are refused, and those there are get reset.
    pub fn refuse(&self, refuse: bool) {
        self.weather.send_modify(|weather| weather.refuse = refuse);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::default());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("make a socket")?;
    socket.set_reuseaddr(true).context("make a socket")?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket)
}

struct Door {
    upstream: SocketAddr,
    seed: u64,
    forecast: watch::Receiver<Weather>,
    connections: Arc<AtomicU64>,
}

impl Door {
    async fn keep(mut self, mut listener: TcpListener) -> Result<()> {
        let mut guests = JoinSet::new();
        loop {
            tokio::select! {
                guest = listener.accept() => {
                    let (client, _) = guest.context("accept")?;
                    let number = self.connections.fetch_add(1, Ordering::Relaxed);
                    let seed = self.seed.wrapping_add(number);
                    guests.spawn(relay(client, self.upstream, self.forecast.clone(), seed));
                }
                changed = self.forecast.changed() => changed.context("the proxy is gone")?,
                Some(_) = guests.join_next() => {}
            }
            if self.forecast.borrow().refuse {
                // Bound but not listening: the port stays ours, and who calls is refused.
                let closed = listener.into_std().context("stop listening")?;
                shutdown(&closed, Shutdown::Read).context("stop listening")?;
                self.forecast.wait_for(|weather| !weather.refuse).await?;
                listen(&closed, 128).context("listen again")?;
                listener = TcpListener::from_std(closed).context("listen again")?;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! A network that fails in a chosen way: a TCP proxy on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// The most that is passed on at once, and so the unit that waits for the latency.
const PIECE: usize = 64 << 10;

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
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr().context("ask for the proxy's port")?;
        let listener = socket.listen(128).context("listen")?;
        let (weather, forecast) = watch::channel(Weather::default());
        let connections = Arc::new(AtomicU64::new(0));
        let door = Door {
            address,
            upstream,
            seed,
            forecast,
            connections: connections.clone(),
        };
        let task = tokio::spawn(door.keep(listener));
        Ok(Self {
            address,
            weather,
            connections,
            task,
        })
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
    socket
        .bind(address)
        .with_context(|| format!("bind {address}"))?;
    Ok(socket)
}

struct Door {
    address: SocketAddr,
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
                    let rng = StdRng::seed_from_u64(self.seed.wrapping_add(number));
                    guests.spawn(relay(client, self.upstream, self.forecast.clone(), rng));
                }
                changed = self.forecast.changed() => changed.context("the proxy is gone")?,
                Some(_) = guests.join_next() => {}
            }
            if self.forecast.borrow().refuse {
                drop(listener);
                // Bound but not listening: the port stays ours, and who calls is refused.
                let closed = bind(self.address)?;
                self.forecast.wait_for(|weather| !weather.refuse).await?;
                listener = closed.listen(128).context("listen")?;
            }
        }
    }
}

/// Why a connection ends.
enum End {
    Closed,
    Reset,
}

async fn relay(
    mut client: TcpStream,
    upstream: SocketAddr,
    forecast: watch::Receiver<Weather>,
    mut rng: StdRng,
) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return reset(&client);
    };
    let (mut client_reads, mut client_writes) = client.split();
    let (mut server_reads, mut server_writes) = server.split();
    let mut pump_up = Pump::new(Direction::ToServer, forecast.clone(), rng.random());
    let mut pump_down = Pump::new(Direction::ToClient, forecast, rng.random());
    let end = tokio::try_join!(
        pump_up.run(&mut client_reads, &mut server_writes),
        pump_down.run(&mut server_reads, &mut client_writes),
    );
    if let Err(End::Reset) = end {
        reset(&client);
        reset(&server);
    }
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

struct Pump {
    direction: Direction,
    forecast: watch::Receiver<Weather>,
    rng: StdRng,
    passed: u64,
}

impl Pump {
    fn new(direction: Direction, forecast: watch::Receiver<Weather>, seed: u64) -> Self {
        Self {
            direction,
            forecast,
            rng: StdRng::seed_from_u64(seed),
            passed: 0,
        }
    }

    async fn run(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> Result<(), End> {
        let mut piece = vec![0; PIECE];
        loop {
            let read = tokio::select! {
                read = from.read(&mut piece) => read.map_err(|_| End::Reset)?,
                () = refused(self.forecast.clone()) => return Err(End::Reset),
            };
            if read == 0 {
                // One side has finished; the other may still be sending.
                let _ = to.shutdown().await;
                return Ok(());
            }
            let mut rest = &mut piece[..read];
            while !rest.is_empty() {
                let toxics = self.clear_way().await?;
                let (now, later) = rest.split_at_mut(self.allowed(&toxics, rest.len()));
                self.pass(now, &toxics, to).await?;
                rest = later;
            }
        }
    }

    /// Waits while nothing may pass, then says what is wrong at this moment.
    async fn clear_way(&mut self) -> Result<Toxics, End> {
        let direction = self.direction;
        let open = |w: &Weather| w.refuse || !toxics_of(w, direction).blackhole;
        let weather = self.forecast.wait_for(open).await.map_err(|_| End::Reset)?;
        if weather.refuse {
            Err(End::Reset)
        } else {
            Ok(toxics_of(&weather, direction).clone())
        }
    }

    /// How much may pass before something happens.
    fn allowed(&self, toxics: &Toxics, wanted: usize) -> usize {
        let marks = [toxics.reset_after, toxics.truncate_after];
        let left = marks
            .into_iter()
            .flatten()
            .map(|mark| mark.saturating_sub(self.passed));
        // A slow line is slow all the time, not fast and then still.
        let rated = toxics.rate.map(|rate| (rate / 20).max(1));
        left.chain(rated)
            .filter_map(|n| usize::try_from(n).ok())
            .fold(wanted, usize::min)
    }

    async fn pass(
        &mut self,
        bytes: &mut [u8],
        toxics: &Toxics,
        to: &mut WriteHalf<'_>,
    ) -> Result<(), End> {
        let size = bytes.len() as u64;
        if let Some(latency) = toxics.latency {
            sleep(latency + toxics.jitter.mul_f64(self.rng.random())).await;
        }
        if let Some(rate) = toxics.rate {
            sleep(Duration::from_secs_f64(size as f64 / rate.max(1) as f64)).await;
        }
        let flip = toxics
            .flip_byte_at
            .and_then(|at| at.checked_sub(self.passed));
        if let Some(byte) = flip.and_then(|at| bytes.get_mut(usize::try_from(at).ok()?)) {
            *byte ^= 1 << self.rng.random_range(0..8);
        }
        to.write_all(bytes).await.map_err(|_| End::Reset)?;
        self.passed += size;
        if toxics.reset_after.is_some_and(|mark| self.passed >= mark) {
            return Err(End::Reset);
        }
        if toxics
            .truncate_after
            .is_some_and(|mark| self.passed >= mark)
        {
            let _ = to.shutdown().await;
            return Err(End::Closed);
        }
        Ok(())
    }
}

fn toxics_of(weather: &Weather, direction: Direction) -> &Toxics {
    match direction {
        Direction::ToServer => &weather.to_server,
        Direction::ToClient => &weather.to_client,
    }
}

async fn refused(mut forecast: watch::Receiver<Weather>) {
    // An error means that the proxy is gone, which ends the connection as well.
    let _ = forecast.wait_for(|weather| weather.refuse).await;
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;

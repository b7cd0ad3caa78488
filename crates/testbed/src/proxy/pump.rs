//! One connection through the proxy: a pump for each direction.

use std::{net::SocketAddr, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::sleep,
};

use super::{Direction, Toxics, Weather};

/// The most that is passed on at once, and so the unit that waits for the latency.
const PIECE: usize = 64 << 10;

/// Why a connection ends.
enum End {
    Closed,
    Reset,
}

/// Carries one connection to its end.
pub(super) async fn relay(
    mut client: TcpStream,
    upstream: SocketAddr,
    forecast: watch::Receiver<Weather>,
    seed: u64,
) {
    let mut rng = StdRng::seed_from_u64(seed);
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
        Self { direction, forecast, rng: StdRng::seed_from_u64(seed), passed: 0 }
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
        if weather.refuse { Err(End::Reset) } else { Ok(toxics_of(&weather, direction).clone()) }
    }

    /// How much may pass before something happens.
    fn allowed(&self, toxics: &Toxics, wanted: usize) -> usize {
        let marks = [toxics.reset_after, toxics.truncate_after];
        let left = marks.into_iter().flatten().map(|mark| mark.saturating_sub(self.passed));
        // A slow line is slow all the time, not fast and then still.
        let rated = toxics.rate.map(|rate| (rate / 20).max(1));
        left.chain(rated).filter_map(|n| usize::try_from(n).ok()).fold(wanted, usize::min)
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
        let flip = toxics.flip_byte_at.and_then(|at| at.checked_sub(self.passed));
        if let Some(byte) = flip.and_then(|at| bytes.get_mut(usize::try_from(at).ok()?)) {
            *byte ^= 1 << self.rng.random_range(0..8);
        }
        to.write_all(bytes).await.map_err(|_| End::Reset)?;
        self.passed += size;
        if toxics.reset_after.is_some_and(|mark| self.passed >= mark) {
            return Err(End::Reset);
        }
        if toxics.truncate_after.is_some_and(|mark| self.passed >= mark) {
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

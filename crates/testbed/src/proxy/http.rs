//! An object store that fails as such stores do: a proxy on loopback that knows where a request
//! ends, and so can fail one of them in a chosen way.
//!
//! It speaks HTTP/1.1 without TLS and serves one request on each connection.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// The head of a request or an answer is no longer.
const HEAD: usize = 64 << 10;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is answered with 500 InternalError, and not done.
    InternalError,
    /// It is answered with 503 SlowDown, and not done.
    SlowDown,
    /// The connection is reset, and it is not done.
    Reset,
    /// It is done, and the connection is reset before the answer.
    LostAnswer,
    /// It is done, and answered with 500 InternalError.
    ErrorAfterSuccess,
    /// It is done, and half of the answer comes before the connection is reset.
    HalfAnswer,
    /// Nothing happens for a while, which [`Faults::stall`] says; then it is done and answered.
    Stall,
    /// It is done, and the answer comes after that while.
    LateAnswer,
    /// It is answered with 403 AccessDenied, and not done: trying again does not help.
    Denied,
}

impl Fault {
    /// All that pass by themselves.
    pub const ALL: [Self; 8] = [
        Self::InternalError,
        Self::SlowDown,
        Self::Reset,
        Self::LostAnswer,
        Self::ErrorAfterSuccess,
        Self::HalfAnswer,
        Self::Stall,
        Self::LateAnswer,
    ];

    fn is_undone(self) -> bool {
        matches!(self, Self::InternalError | Self::SlowDown | Self::Reset | Self::Denied)
    }
}

/// Which requests can fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requests {
    /// All.
    #[default]
    Any,
    /// Those that change something: PUT, POST, DELETE.
    Writes,
}

/// Which requests fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One of these, each as likely as the others.
    pub kinds: Vec<Fault>,
    /// How likely it is that a request fails: 0 to 1.
    pub chance: f64,
    /// How long a stall lasts.
    pub stall: Duration,
    /// Among which requests.
    pub among: Requests,
}

impl Faults {
    /// Every request fails with this.
    pub fn always(kind: Fault) -> Self {
        Self { kinds: vec![kind], chance: 1.0, ..Self::default() }
    }

    /// What changes something is denied: as if the credentials could only read.
    pub fn read_only() -> Self {
        Self { among: Requests::Writes, ..Self::always(Fault::Denied) }
    }
}

/// A proxy in front of one HTTP server. Dropping it cuts every connection through it.
#[derive(Debug)]
pub struct HttpProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<Result<()>>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    faults: Faults,
    requests: u64,
    injected: BTreeMap<Fault, u64>,
}

impl HttpProxy {
    /// Starts a proxy on a free port, which passes everything on until told otherwise. The same
    /// seed makes the same choices for the same requests in the same order.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr().context("ask for the proxy's port")?;
        let state = Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::default(),
            requests: 0,
            injected: BTreeMap::new(),
        }));
        let task = tokio::spawn(keep(listener, upstream, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// What a client takes as its endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets what goes wrong with the requests that come from now on.
    pub fn set(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// How many requests came so far.
    pub fn requests(&self) -> u64 {
        lock(&self.state).requests
    }

    /// How many of them failed in each way.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        lock(&self.state).injected.clone()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    fn fate(&mut self, request: &[u8]) -> (Option<Fault>, Duration) {
        self.requests += 1;
        let writes = ["PUT ", "POST ", "DELETE "];
        let among = self.faults.among == Requests::Any
            || writes.iter().any(|method| request.starts_with(method.as_bytes()));
        let fails =
            among && !self.faults.kinds.is_empty() && self.rng.random_bool(self.faults.chance);
        let fault = fails.then(|| {
            let at = self.rng.random_range(0..self.faults.kinds.len());
            self.faults.kinds[at]
        });
        if let Some(fault) = fault {
            *self.injected.entry(fault).or_default() += 1;
        }
        (fault, self.faults.stall)
    }
}

async fn keep(listener: TcpListener, upstream: SocketAddr, state: Arc<Mutex<State>>) -> Result<()> {
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            guest = listener.accept() => {
                let (client, _) = guest.context("accept")?;
                guests.spawn(serve(client, upstream, Arc::clone(&state)));
            }
            Some(_) = guests.join_next() => {}
        }
    }
}

/// One request and its answer. An error ends the connection, which is all that anybody sees.
async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Result<()> {
    let Some(request) = message(&mut client).await? else {
        return Ok(());
    };
    let (fault, stall) = lock(&state).fate(&request);
    match fault {
        Some(Fault::InternalError) => return refuse(&mut client, "500", "InternalError").await,
        Some(Fault::SlowDown) => return refuse(&mut client, "503", "SlowDown").await,
        Some(Fault::Denied) => return refuse(&mut client, "403", "AccessDenied").await,
        Some(Fault::Reset) => return reset(&client),
        Some(Fault::Stall) => tokio::time::sleep(stall).await,
        _ => {}
    }
    debug_assert!(fault.is_none_or(|fault| !fault.is_undone()));
    let mut server = TcpStream::connect(upstream).await.context("connect")?;
    server.write_all(&closing(&request)?).await.context("pass the request on")?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.context("read the answer")?;
    match fault {
        Some(Fault::LostAnswer) => return reset(&client),
        Some(Fault::ErrorAfterSuccess) => {
            return refuse(&mut client, "500", "InternalError").await;
        }
        Some(Fault::HalfAnswer) => {
            client.write_all(&answer[..answer.len() / 2]).await.context("answer")?;
            return reset(&client);
        }
        Some(Fault::LateAnswer) => tokio::time::sleep(stall).await,
        _ => {}
    }
    client.write_all(&closing(&answer)?).await.context("answer")?;
    client.shutdown().await.context("answer")
}

async fn refuse(client: &mut TcpStream, status: &str, code: &str) -> Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>injected</Message></Error>");
    let answer = format!(
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await.context("refuse")?;
    client.shutdown().await.context("refuse")
}

fn reset(client: &TcpStream) -> Result<()> {
    client.set_zero_linger().context("reset")
}

/// A request with its whole body, or `None` when the client has gone.
async fn message(stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(bytes.len() < HEAD, "a head without end");
        if stream.read_buf(&mut bytes).await.context("read a request")? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        bail!("a request in chunks is not passed on");
    }
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(Ok(0), |length| length.trim().parse()).context("a length")?;
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.context("read a body")? == 0 {
            bail!("a body that was cut off");
        }
    }
    Ok(Some(bytes))
}

/// The same message, which says that the connection ends after it.
fn closing(message: &[u8]) -> Result<Vec<u8>> {
    let end = message.windows(4).position(|end| end == b"\r\n\r\n").context("no head")?;
    let (head, rest) = message.split_at(end);
    let head = String::from_utf8_lossy(head);
    let lines = head.split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or(line);
        !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case("keep-alive")
    });
    let head = lines.collect::<Vec<_>>().join("\r\n");
    Ok([head.as_bytes(), b"\r\nConnection: close", rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what it was asked, and how often.
    async fn echo() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = message(&mut stream).await.unwrap().unwrap();
                let text = String::from_utf8(request).unwrap();
                let body = text.split("\r\n\r\n").nth(1).unwrap().to_owned();
                list.lock().unwrap().push(body.clone());
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{answer}{body}").as_bytes()).await.unwrap();
            }
        });
        (address, asked)
    }

    async fn ask(proxy: &HttpProxy, body: &str) -> std::io::Result<String> {
        ask_to("PUT", proxy, body).await
    }

    async fn ask_to(method: &str, proxy: &HttpProxy, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(proxy.address).await?;
        let length = body.len();
        let head = format!("{method} /x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn each_fault_is_what_it_says() {
        let (upstream, asked) = echo().await;
        let proxy = HttpProxy::start(upstream, 7).await.unwrap();
        assert!(ask(&proxy, "hello").await.unwrap().ends_with("\r\n\r\nhello"));
        for (number, kind) in Fault::ALL.into_iter().chain([Fault::Denied]).enumerate() {
            let body = format!("body {number}");
            let stall = Duration::from_millis(50);
            proxy.set(Faults { stall, ..Faults::always(kind) });
            let began = std::time::Instant::now();
            let answer = ask(&proxy, &body).await;
            let done = asked.lock().unwrap().contains(&body);
            assert_eq!(done, !kind.is_undone(), "{kind:?}");
            let status = answer.as_ref().ok().and_then(|answer| answer.split(' ').nth(1));
            match kind {
                Fault::InternalError | Fault::ErrorAfterSuccess => assert_eq!(status, Some("500")),
                Fault::SlowDown => assert_eq!(status, Some("503")),
                Fault::Denied => assert_eq!(status, Some("403")),
                Fault::Reset | Fault::LostAnswer | Fault::HalfAnswer => {
                    assert!(answer.is_err(), "{kind:?}: {answer:?}");
                }
                Fault::Stall | Fault::LateAnswer => {
                    assert!(began.elapsed() >= stall);
                    assert!(answer.unwrap().ends_with(&body));
                }
            }
        }
        assert_eq!(proxy.injected().values().sum::<u64>(), 9);
        assert_eq!(proxy.requests(), 10);
        proxy.set(Faults::read_only());
        assert!(ask_to("GET", &proxy, "").await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(ask_to("DELETE", &proxy, "").await.unwrap().starts_with("HTTP/1.1 403"));
    }
}

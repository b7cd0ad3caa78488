//! Sockets and TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{ReplicationError, Result};

/// The port where none is said.
const PORT: u16 = 5432;

/// What carries a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// One way to a server.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// A socket of the operating system, in this directory.
    Unix(std::path::PathBuf, u16),
    /// A name or an address; the name is what the certificate must carry.
    Tcp { name: String, at: Option<std::net::IpAddr>, port: u16 },
}

/// The ways that the settings name, in their order.
pub(super) fn ways(config: &Config) -> Vec<Way> {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.last()).copied().unwrap_or(PORT);
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let way = |index: usize| match (hosts.get(index), addresses.get(index)) {
        (Some(Host::Unix(directory)), _) => Way::Unix(directory.clone(), port(index)),
        (Some(Host::Tcp(name)), at) => {
            Way::Tcp { name: name.clone(), at: at.copied(), port: port(index) }
        }
        (None, at) => {
            let name = at.map(ToString::to_string).unwrap_or_default();
            Way::Tcp { name, at: at.copied(), port: port(index) }
        }
    };
    (0..hosts.len().max(addresses.len())).map(way).collect()
}

/// Opens a stream to a server, protected as the settings say.
pub(super) async fn open(
    way: &Way,
    mode: SslMode,
    tls: &MakeRustlsConnect,
    target: &str,
) -> Result<Box<dyn Stream>> {
    let unreachable = |source| ReplicationError::Unreachable { target: target.to_owned(), source };
    match way {
        Way::Unix(directory, port) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        Way::Tcp { name, at, port } => {
            let stream = match at {
                Some(address) => TcpStream::connect(SocketAddr::new(*address, *port)).await,
                None => TcpStream::connect((name.as_str(), *port)).await,
            };
            let stream = stream.map_err(unreachable)?;
            tune(&stream).map_err(unreachable)?;
            if mode == SslMode::Disable {
                return Ok(Box::new(stream));
            }
            protect(stream, name, mode, tls.clone(), target).await
        }
    }
}

/// Small messages go at once. And a server may be silent for minutes, at a checkpoint before a
/// backup for one: the kernel finds out meanwhile whether it is still there, and gives up a dead one
/// after about two minutes.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(60));
    let probes = probes.with_interval(Duration::from_secs(10)).with_retries(6);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Asks the server for TLS.
async fn protect(
    mut stream: TcpStream,
    name: &str,
    mode: SslMode,
    mut tls: MakeRustlsConnect,
    target: &str,
) -> Result<Box<dyn Stream>> {
    let unreachable = |source| ReplicationError::Unreachable { target: target.to_owned(), source };
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(unreachable)?;
    // One byte and no more: what follows it must be read by nobody but TLS.
    match stream.read_u8().await.map_err(unreachable)? {
        b'S' => {
            let connector =
                <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::make_tls_connect(&mut tls, name)
                    .map_err(|error| unreachable(io::Error::other(error)))?;
            let stream = connector.connect(stream).await.map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        b'N' if mode == SslMode::Prefer => Ok(Box::new(stream)),
        b'N' => Err(ReplicationError::Unsuitable {
            target: target.to_owned(),
            why: "the server does not offer TLS, and sslmode asks for it".into(),
            remedy: "turn ssl on at the server, or choose another sslmode",
        }),
        other => Err(ReplicationError::protocol(
            format!("connect to PostgreSQL at {target} for replication"),
            format!("it answers the request for TLS with the byte {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_tried_in_order() {
        let config: Config = "host=a,/run/x,b port=1,2,3 user=u".parse().unwrap();
        let found = ways(&config);
        assert!(
            matches!(
                &found[..],
                [
                    Way::Tcp { name: first, port: 1, at: None },
                    Way::Unix(directory, 2),
                    Way::Tcp { port: 3, .. }
                ] if first == "a" && directory.as_os_str() == "/run/x"
            ),
            "{found:?}"
        );
        let config: Config = "hostaddr=127.0.0.1 user=u".parse().unwrap();
        let found = ways(&config);
        assert!(matches!(&found[..], [Way::Tcp { at: Some(_), port: 5432, .. }]), "{found:?}");
    }

    #[tokio::test]
    async fn a_dead_server_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let waits = socket.tcp_keepalive_time().unwrap()
            + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(waits, Duration::from_secs(120));
    }
}

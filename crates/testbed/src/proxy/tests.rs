//! A server that echoes stands behind the proxy in all of these.

use std::{io::ErrorKind, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    address
}

async fn proxy() -> Proxy {
    Proxy::start(echo().await, 7).unwrap()
}

/// Sends, says that it is done, and returns what came back until the end.
async fn exchange(proxy: &Proxy, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(proxy.address()).await?;
    let (mut reads, mut writes) = stream.split();
    let send = async {
        writes.write_all(sent).await?;
        writes.shutdown().await
    };
    let mut received = Vec::new();
    let (sending, receiving) = tokio::join!(send, reads.read_to_end(&mut received));
    receiving?;
    sending?;
    Ok(received)
}

fn to_client(proxy: &Proxy, toxics: Toxics) {
    proxy.set(Direction::ToClient, toxics);
}

#[tokio::test]
async fn everything_passes_when_nothing_is_wrong() {
    let proxy = proxy().await;
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    assert!(exchange(&proxy, &sent).await.unwrap() == sent);
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn refused_and_then_healed() {
    let proxy = proxy().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.read_u8().await.unwrap();
    proxy.refuse(true);
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(exchange(&proxy, b"x").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.heal();
    while let Err(error) = exchange(&proxy, b"x").await {
        // The door opens a moment after the order.
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn reset_and_truncated_where_told() {
    let proxy = proxy().await;
    to_client(&proxy, Toxics { reset_after: Some(10), ..Toxics::default() });
    let error = exchange(&proxy, &[1; 100]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    to_client(&proxy, Toxics { truncate_after: Some(10), ..Toxics::default() });
    assert_eq!(exchange(&proxy, &[1; 100]).await.unwrap(), [1; 10]);
}

#[tokio::test]
async fn one_bit_is_flipped_and_the_seed_decides_which() {
    let mut answers = Vec::new();
    for _ in 0..2 {
        let proxy = proxy().await;
        to_client(&proxy, Toxics { flip_byte_at: Some(42), ..Toxics::default() });
        let received = exchange(&proxy, &[0; 100]).await.unwrap();
        let wrong: Vec<usize> = (0..100).filter(|at| received[*at] != 0).collect();
        assert_eq!(wrong, [42]);
        assert_eq!(received[42].count_ones(), 1);
        answers.push(received);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn slow_by_latency_and_by_rate() {
    let proxy = proxy().await;
    to_client(&proxy, Toxics { latency: Some(Duration::from_millis(200)), ..Toxics::default() });
    let start = Instant::now();
    assert_eq!(exchange(&proxy, b"x").await.unwrap(), b"x");
    assert!(start.elapsed() >= Duration::from_millis(200));
    to_client(&proxy, Toxics { rate: Some(100_000), ..Toxics::default() });
    let start = Instant::now();
    assert_eq!(exchange(&proxy, &[3; 30_000]).await.unwrap().len(), 30_000);
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_black_hole_holds_everything_back() {
    let proxy = proxy().await;
    to_client(&proxy, Toxics { blackhole: true, ..Toxics::default() });
    let exchange = exchange(&proxy, b"held");
    tokio::pin!(exchange);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut exchange).await;
    assert!(early.is_err(), "{early:?}");
    proxy.heal();
    assert_eq!(exchange.await.unwrap(), b"held");
}

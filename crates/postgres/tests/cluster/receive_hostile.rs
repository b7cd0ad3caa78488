//! The receiver before a server that lies: one of our own, which says what a test wants it to.

use std::sync::Arc;

use lifeboat_core::Bytes;
use lifeboat_postgres::{ConnectOptions, Lsn, WalLine};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::run;
use crate::following::{Follower, Kept, eventually};

const SYSTEM: u64 = 7_400_000_000_000_000_001;
const LINE: WalLine = WalLine { system_id: SYSTEM, timeline: 1 };
const MIB: u64 = 1 << 20;
/// Where the slot begins: a segment.
const START: u64 = 5 * MIB;

/// What is done once WAL was asked for.
enum Act {
    Wal(u64, Bytes),
    Raw(Vec<u8>),
    Close,
}

/// What came of it.
#[derive(Default)]
struct Seen {
    /// From where on WAL was asked for, each time.
    starts: Vec<Lsn>,
    /// What was said to be written, and to be durable.
    reports: Vec<(Lsn, Lsn)>,
}

type Script = dyn Fn(usize) -> Vec<Act> + Send + Sync;

/// A server that does what a script says at each request for WAL.
struct Fake {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start(script: impl Fn(usize) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (shared, script) = (Arc::clone(&seen), Arc::new(script));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                // Who hangs up ends it.
                tokio::spawn(async move { serve(stream, &shared, &*script).await.ok() });
            }
        });
        Self { port, seen, task }
    }

    fn connection(&self) -> ConnectOptions {
        let words = format!("host=127.0.0.1 port={} user=u sslmode=disable", self.port);
        ConnectOptions::parse(&words).unwrap()
    }

    /// Waits until WAL was asked for so many times.
    async fn asked(&self, times: usize) {
        eventually("it asks again", async || {
            (self.seen.lock().starts.len() >= times).then_some(())
        })
        .await;
    }
}

async fn serve(mut stream: TcpStream, seen: &Mutex<Seen>, script: &Script) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await?;
    let mut hello = message(b'R', &[0, 0, 0, 0]);
    hello.extend(message(b'S', b"server_version\x0017.0\0"));
    hello.extend(message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"));
    hello.extend(message(b'Z', b"I"));
    stream.write_all(&hello).await?;
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        if tag == b'd' {
            let number = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
            seen.lock().reports.push((Lsn(number(1)), Lsn(number(9))));
            continue;
        }
        if tag != b'Q' {
            return Ok(());
        }
        let query = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        let position = Lsn(START).to_string();
        let answer = match query.split(' ').next().unwrap() {
            "SHOW" => rows(&["1MB"]),
            "IDENTIFY_SYSTEM" => rows(&[&SYSTEM.to_string(), "1", &position, ""]),
            "READ_REPLICATION_SLOT" => rows(&["physical", &position, "1"]),
            "CREATE_REPLICATION_SLOT" => {
                let mut refused = message(b'E', b"SERROR\0C42710\0Mit is there\0\0");
                refused.extend(message(b'Z', b"I"));
                refused
            }
            "START_REPLICATION" => {
                let from = query.split(' ').nth(4).unwrap().parse().unwrap();
                let turn = {
                    let mut seen = seen.lock();
                    seen.starts.push(from);
                    seen.starts.len() - 1
                };
                stream.write_all(&message(b'W', &[0, 0, 0])).await?;
                for act in script(turn) {
                    match act {
                        Act::Wal(from, bytes) => {
                            let end = from + bytes.len() as u64;
                            let mut body = vec![b'w'];
                            body.extend(from.to_be_bytes());
                            body.extend(end.to_be_bytes());
                            body.extend(0_u64.to_be_bytes());
                            body.extend(bytes);
                            stream.write_all(&message(b'd', &body)).await?;
                        }
                        Act::Raw(bytes) => stream.write_all(&bytes).await?,
                        Act::Close => return Ok(()),
                    }
                }
                Vec::new()
            }
            other => panic!("nobody taught me {other}"),
        };
        stream.write_all(&answer).await?;
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![tag];
    all.extend((body.len() as u32 + 4).to_be_bytes());
    all.extend(body);
    all
}

/// One row of text.
fn rows(values: &[&str]) -> Vec<u8> {
    let count = (values.len() as u16).to_be_bytes();
    let (mut columns, mut row) = (count.to_vec(), count.to_vec());
    for value in values {
        columns.extend(b"c\0");
        columns.extend([0; 18]);
        row.extend((value.len() as u32).to_be_bytes());
        row.extend(value.as_bytes());
    }
    let mut all = message(b'T', &columns);
    all.extend(message(b'D', &row));
    all.extend(message(b'C', b"SELECT 1\0"));
    all.extend(message(b'Z', b"I"));
    all
}

/// WAL as a server of this system would write it, as far as its pages tell.
fn wal(from: u64, length: usize) -> Bytes {
    let first = from / MIB * MIB;
    let until = from + length as u64 + 8192;
    let mut bytes: Vec<u8> = (first..until).map(|at| (at.wrapping_mul(31) >> 3) as u8).collect();
    for (page, at) in bytes.chunks_mut(8192).zip((first..).step_by(8192)) {
        if page.len() < 40 {
            break;
        }
        page[..8].copy_from_slice(&[0x16, 0xd1, 0, 0, 1, 0, 0, 0]);
        page[8..16].copy_from_slice(&at.to_le_bytes());
        if at.is_multiple_of(MIB) {
            page[2] = 2;
            page[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
            page[32..36].copy_from_slice(&(MIB as u32).to_le_bytes());
            page[36..40].copy_from_slice(&8192_u32.to_le_bytes());
        }
    }
    let skip = (from - first) as usize;
    Bytes::copy_from_slice(&bytes[skip..skip + length])
}

/// Whatever the first turns do, a true server afterwards gives all of it from the beginning, and
/// that is what is kept.
async fn recovers_from(lies: Vec<Vec<Act>>) {
    const LENGTH: usize = 100_000;
    let turns = lies.len();
    let lies = Mutex::new(lies.into_iter());
    let fake = Fake::start(move |turn| {
        if turn < turns {
            return lies.lock().next().unwrap();
        }
        vec![Act::Wal(START, wal(START, LENGTH))]
    })
    .await;
    let kept = Kept::new();
    let follower = Follower::start(&kept, fake.connection());
    follower.reaches(1, Lsn(START + LENGTH as u64)).await;
    follower.stop().await;
    let (start, bytes) = kept.bytes(LINE).await;
    assert_eq!(start, Lsn(START));
    assert!(bytes == wal(START, LENGTH), "something else was kept");
    let seen = fake.seen.lock();
    assert_eq!(seen.starts.len(), turns + 1);
}

#[test]
fn what_does_not_follow_is_not_taken() {
    run(async {
        // Later than what was asked for; earlier; a hole; something twice.
        recovers_from(vec![
            vec![Act::Wal(START + 8192, wal(START + 8192, 8192))],
            vec![Act::Wal(START - 8192, wal(START - 8192, 8192))],
        ])
        .await;
        let hole =
            vec![Act::Wal(START, wal(START, 8192)), Act::Wal(START + 16384, wal(START, 100))];
        recovers_from(vec![hole]).await;
        // No page begins in it, so that no page tells.
        let within = vec![
            Act::Wal(START, wal(START, 1000)),
            Act::Wal(START + 2000, wal(START + 2000, 1000)),
        ];
        recovers_from(vec![within]).await;
        let twice = vec![Act::Wal(START, wal(START, 8192)), Act::Wal(START, wal(START, 8192))];
        recovers_from(vec![twice]).await;
    });
}

#[test]
fn pages_of_another_place_are_not_taken() {
    run(async {
        // The pages of another segment, and those of another system.
        let mut foreign = wal(START, 20_000).to_vec();
        foreign[24] ^= 1;
        let mut late = wal(START, 20_000).to_vec();
        late[8192 + 9] ^= 1;
        for bytes in [wal(START + MIB, 20_000), foreign.into(), late.into()] {
            recovers_from(vec![vec![Act::Wal(START, bytes)]]).await;
        }
    });
}

#[test]
fn what_is_no_protocol_ends_a_connection_and_nothing_else() {
    run(async {
        let lies = [
            b"d\xff\xff\xff\xff".to_vec(),
            b"d\0\0\0\x03".to_vec(),
            message(b'd', b""),
            message(b'd', b"q123"),
            message(b'd', b"w123"),
            message(b'D', b"\0\0"),
            message(b'Z', b"I"),
            message(b'E', b"no end"),
            message(b'E', b"SFATAL\0C57P01\0Mgone\0\0"),
            message(b'W', &[0, 0, 0]),
            b"garbage that is not a message".to_vec(),
        ];
        recovers_from(lies.into_iter().map(|lie| vec![Act::Raw(lie), Act::Close]).collect()).await;
    });
}

#[test]
fn what_was_received_is_kept_although_the_server_is_gone() {
    run(async {
        let length = 10_000;
        let fake = Fake::start(move |turn| match turn {
            0 => vec![Act::Wal(START, wal(START, length)), Act::Close],
            // And never again.
            _ => vec![Act::Close],
        })
        .await;
        let kept = Kept::new();
        let follower = Follower::start(&kept, fake.connection());
        fake.asked(2).await;
        follower.stop().await;
        let (start, bytes) = kept.bytes(LINE).await;
        assert_eq!((start, bytes.len()), (Lsn(START), length));
        assert!(bytes == wal(START, length));
    });
}

#[test]
fn no_report_says_more_than_what_is_durable() {
    run(async {
        let length = 3 * MIB as usize + 5000;
        let fake = Fake::start(move |_| vec![Act::Wal(START, wal_of_many(length))]).await;
        let end = Lsn(START + length as u64);
        let kept = Kept::new();
        // Nothing becomes durable, and nothing fails either.
        kept.slow(true);
        let follower = Follower::start(&kept, fake.connection());
        eventually("all of it is received", async || {
            fake.seen.lock().reports.iter().any(|(written, _)| *written == end).then_some(())
        })
        .await;
        let most = fake.seen.lock().reports.iter().map(|(_, flushed)| *flushed).max();
        assert_eq!((most, follower.durable(1)), (Some(Lsn(START)), Lsn(0)));
        kept.slow(false);
        follower.reaches(1, end).await;
        eventually("the last report", async || {
            let reports = &fake.seen.lock().reports;
            reports
                .iter()
                .any(|(written, flushed)| *written == end && *flushed == end)
                .then_some(())
        })
        .await;
        follower.stop().await;
        let reports = &fake.seen.lock().reports;
        assert!(reports.iter().all(|(written, flushed)| flushed <= written));
    });
}

fn wal_of_many(length: usize) -> Bytes {
    let mut all = Vec::new();
    while all.len() < length {
        let part = (length - all.len()).min(MIB as usize);
        all.extend_from_slice(&wal(START + all.len() as u64, part));
    }
    all.into()
}

//! `lifeboat cat`: writes the content of a file to standard output.

use lifeboat_core::{Error, Extent};

use super::which::{find_any, note_reach};
use crate::args::Cat;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::session::Session;

/// A hole is written in stretches of so many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(super) async fn run(arguments: &Cat, session: &Session) -> Result<Exit, Failed> {
    if session.output.is_json() {
        let hint = "leave --json out, or restore the file";
        return Err(Failed::usage("`cat` writes bytes, and no events", hint));
    }
    let opened = session.repository().await?;
    let info = find_any(&arguments.which, &opened, session).await?;
    let opening = session.unless_cancelled(opened.repository.snapshot(&info.id)).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    note_reach(&snapshot, session).await;
    let file = session.unless_cancelled(snapshot.file(&arguments.path)).await?;
    let file = file.map_err(|error| opened.failed(error))?;
    let end = arguments.length.map_or(u64::MAX, |length| arguments.offset.saturating_add(length));
    let mut content = file.read(arguments.offset..end);
    loop {
        let next = session.unless_cancelled(content.next()).await?;
        let Some(extent) = next.map_err(|error| opened.of_store(error))? else { break };
        if write(&extent, session)? == Reader::Gone {
            break;
        }
    }
    Ok(Exit::with_warnings(session.context.warnings()))
}

/// Who reads standard output.
#[derive(PartialEq)]
enum Reader {
    There,
    Gone,
}

fn write(extent: &Extent, session: &Session) -> Result<Reader, Failed> {
    let put = |bytes: &[u8]| tokio::task::block_in_place(|| session.output.bytes(bytes));
    let written = match extent {
        Extent::Data(bytes) => put(bytes),
        Extent::Unchanged(length) | Extent::Hole(length) => {
            let mut left = *length;
            let mut written = Ok(());
            while left > 0 && written.is_ok() {
                let part = left.min(ZEROS.len() as u64);
                written = put(&ZEROS[..part as usize]);
                left -= part;
            }
            written
        }
    };
    match written {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::io("write to standard output", error).into()),
    }
}

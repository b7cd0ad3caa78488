//! A call that lets the service do the work. It is made before anything else is, and blocks: a
//! server waits for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, MAX_LINE, Outcome, Request, line, socket, understood};
use crate::args::{Command, Gap, Global, Wal, WalCluster};
use crate::commands::told;
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::Output;
use crate::session::Session;

/// A service that says nothing for so long is given up; the call does the work alone.
const PATIENCE: Duration = Duration::from_mins(5);

/// Lets the service answer a call; `None` when the call is none of those, or nobody answers.
pub(crate) fn ask(
    command: &Command,
    global: &Global,
    output: &Output,
) -> Option<Result<Exit, Failed>> {
    let Command::Wal(wal) = command else { return None };
    let (file, cluster, request) = request(wal)?;
    let session = Session::new(global.clone(), output.clone());
    let socket = match &cluster.socket {
        Some(named) => named.clone(),
        None => socket(&session, &session.location().ok()?, &cluster.name)?,
    };
    let answer = answer(&socket, &request)?;
    for note in &answer.notes {
        output.note(note);
    }
    Some(told(output, Some(&file), answer.outcome))
}

/// What a call asks for: the file, the cluster, and the request.
fn request(wal: &Wal) -> Option<(String, &WalCluster, Request)> {
    let absolute = |cluster: &WalCluster| cluster.data_directory.canonicalize().ok();
    match wal {
        Wal::Push(push) => {
            let data_directory = absolute(&push.cluster)?;
            let (path, ahead) = (push.path.clone(), push.ahead);
            let file = path.file_name()?.to_str()?.to_owned();
            Some((file, &push.cluster, Request::Push { path, data_directory, ahead }))
        }
        Wal::Get(get) => {
            let request = Request::Get {
                file: get.file.clone(),
                path: get.path.clone(),
                data_directory: absolute(&get.cluster)?,
                ahead: get.ahead,
                standby: get.standby,
                over_gaps: get.at_gap == Gap::End,
            };
            Some((get.file.clone(), &get.cluster, request))
        }
        Wal::Adopt(_) | Wal::Serve(_) => None,
    }
}

fn answer(socket: &Path, request: &Request) -> Option<Answer> {
    // Whoever else could make a socket there could also say what is not so.
    let owner = std::fs::metadata(socket).ok()?.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(&line(request)?).ok()?;
    let mut said = Vec::new();
    BufReader::new(stream).take(MAX_LINE).read_until(b'\n', &mut said).ok()?;
    let answer: Answer = understood(said.strip_suffix(b"\n")?)?;
    // A service that cannot is no proof that the call cannot: the call tells what is wrong.
    (!matches!(answer.outcome, Outcome::Failed { .. })).then_some(answer)
}

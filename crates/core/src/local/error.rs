//! Operating-system errors as people read them.

use std::fmt::Display;
use std::io;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

/// The error for an operating-system call that failed: `action` is what was being done, in a
/// word or two, and `subject` to what, as people know it.
///
/// A full disk or quota is [`ErrorKind::Exhausted`], a link or file in the place of a directory
/// is [`ErrorKind::Refused`]; the common situations come with a hint.
pub fn failed(
    action: &str,
    subject: &(impl Display + ?Sized),
    error: impl Into<io::Error>,
) -> Error {
    let error = error.into();
    let (kind, hint) = classify(&error);
    let failure = Error::new(kind, format!("{action} {subject}")).with_source(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn classify(error: &io::Error) -> (ErrorKind, Option<&'static str>) {
    let kind = ErrorKind::of_io(error);
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC) => (
            ErrorKind::Exhausted,
            Some("make room on that file system, or take another target, and run it again"),
        ),
        Some(Errno::DQUOT) => (
            ErrorKind::Exhausted,
            Some("raise the quota, or take another target, and run it again"),
        ),
        Some(Errno::FBIG) => (
            ErrorKind::Exhausted,
            Some("that file system cannot hold a file of this size; take another target"),
        ),
        Some(Errno::MFILE | Errno::NFILE) => {
            (ErrorKind::Exhausted, Some("raise the limit of open files (ulimit -n)"))
        }
        Some(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => (
            ErrorKind::Refused,
            Some(
                "a symbolic link or a file stands where a directory has to be; links are never followed",
            ),
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            (ErrorKind::Refused, Some("run it as the owner of these files, or as root"))
        }
        Some(Errno::ROFS) => (ErrorKind::Refused, Some("that file system is mounted read-only")),
        Some(Errno::IO) => {
            (ErrorKind::Other, Some("the disk reports a fault; look at the kernel's log"))
        }
        Some(Errno::NAMETOOLONG) => {
            (ErrorKind::InvalidInput, Some("that file system does not take names of this length"))
        }
        _ => (kind, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_and_comes_with_advice() {
        let error = failed("write", "/target/a", Errno::NOSPC);
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let line = error.one_line();
        assert!(line.starts_with("write /target/a: No space left on device"), "{line}");
        assert!(line.contains("make room"), "{line}");
    }
}

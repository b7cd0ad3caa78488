//! How the command ends.

use std::process::ExitCode;

/// The exit code, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All of it worked.
    Complete,
    /// It failed, or damage was found.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// It worked, and something in it needs attention.
    Attention,
    /// A signal stopped it.
    Interrupted,
}

impl Exit {
    /// How a command ends that worked, with so many warnings.
    pub(crate) fn with_warnings(warnings: u64) -> Self {
        if warnings == 0 { Self::Complete } else { Self::Attention }
    }

    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Attention => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

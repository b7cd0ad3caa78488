//! Replicas: how far they are behind, and how one takes the primary's place.
//!
//! # Promoting
//!
//! Two servers that both take writes are two histories, and one of them will be lost. So a standby is
//! promoted only when
//!
//! 1. it has replayed all that it has received;
//! 2. it has all that the primary has, when that can still be asked; and
//! 3. the primary takes no writes any more: it is down, or in recovery, or somebody says that it is
//!    fenced off ([`Fencing::SaidToBe`]). That it does not answer *here* is no proof.
//!
//! Afterwards the new primary is asked whether it takes writes, and on which timeline.

mod error;
mod promote;
mod status;

pub use self::error::ReplicaError;
pub use self::promote::{Fencing, PromoteOptions, Promoted, promote};
pub use self::status::{Replica, Role, ServerStatus};

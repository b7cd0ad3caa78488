//! Forgetting snapshots.
//!
//! First a [`ForgetPlan`]: what a policy, or somebody who names them, says of each snapshot. It
//! touches nothing, so it is what a dry run shows. Then [`Repository::forget`] carries it out.
//!
//! Forgetting deletes roots of snapshots, and nothing else: the objects `snapshots/<id>`. What only
//! they needed is found and deleted later, by pruning; until then no room is gained.
//!
//! Where a policy promises moments, what lies in a journal before all bases that it keeps for them
//! can go as well: [`Repository::plan_trims`] says what, and [`Repository::trim`] deletes it.
//!
//! # What is never forgotten
//!
//! - **What a live pin holds**, whatever a plan says. Pins are read again before and after every
//!   step; what was pinned in between is put back. While a pin cannot be read, nothing is forgotten.
//! - **The last snapshot of a store**, unless its name was said for that purpose. Two who forget
//!   at once could each leave what the other takes; so this, too, is looked at again after every
//!   step, and the newest one is put back.
//! - **Anything at all** where the clocks of host and store are more than five minutes apart, or
//!   where a later version asks for something that this program does not know.

mod apply;
mod journals;
mod plan;

pub use apply::Forgotten;
pub use journals::{PlannedTrim, Trimmed};
pub use plan::{ForgetOptions, ForgetPlan, PlannedGroup};

//! Writers, sweepers and checks at the same time.
//!
//! Several programs work on one store in memory. Each can be held at any of its requests, while the
//! others go on; time passes for what is stored, with or without signs of life from those that are
//! held. Whatever happens: a backup that said that it is done has a snapshot, and that restores in
//! full; and once nobody is at work any more, all that is there is whole.
//!
//! - `held`: one program is held after each number of its requests in turn; the other one runs.
//! - `turns`: three programs take turns, all lengths of the turns at small size.
//! - `chance`: any programs, any turns, and a store that loses, delays and doubles requests, and
//!   whose listings are behind.

mod chance;
mod held;
mod scene;
mod turns;

//! Whatever is killed, at whatever moment: the repository is whole, and the next run goes on.
//!
//! Each test kills one kind of command or several, by SIGKILL, at moments drawn by chance from the
//! first instant to shortly after an ordinary end. `LIFEBOAT_KILLS` sets how often each test does
//! it; `LIFEBOAT_SEED` repeats a run as far as moments can be repeated.

#![allow(clippy::unwrap_used)]

mod repairs;
mod rotation;
mod scene;
mod work;
